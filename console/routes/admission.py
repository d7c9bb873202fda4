"""That who asks may ask (console/callers.py), as a dependency of routes."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from console.answers import Asked
from console.callers import Callers

_BEARER: Final = HTTPBearer(auto_error=False, description="A token of OPPORTUNE_API_TOKEN or OPPORTUNE_API_TOKENS.")


def may(callers: Callers, *scopes: str) -> Any:
    """A dependency: that who asks may do one of these."""
    wanted = f"token: one with the scope {' or '.join(scopes)} wanted"

    def admitted(shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        if not any(map(callers.some_may, scopes)):
            raise Asked(403, "read_only", f"{wanted} in the API's settings, got none")
        caller = callers.of(shown.credentials if shown is not None else None)
        may = caller is not None and any(map(caller.may, scopes))
        if caller is None or (shown is None and not may):
            raise Asked(401, "no_token", "Authorization: Bearer and a token of this API wanted, got something else")
        if not may:
            raise Asked(403, "no_scope", f"{wanted}, got one without")

    return Depends(admitted)
