"""How the API answers: plain JSON that no cache keeps, and refusals with a code and a message."""

from __future__ import annotations

from typing import Any, Final

import orjson
from fastapi import Response

from console import shapes


class Asked(Exception):
    """The answer is no success."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": shapes.Problem, "description": "What was asked is not well formed."},
    401: {"model": shapes.Problem, "description": "A token is wanted, as `Authorization: Bearer …`."},
    403: {"model": shapes.Problem, "description": "The token may not do this."},
    404: {"model": shapes.Problem, "description": "There is no such thing."},
    422: {"model": shapes.Problem, "description": "Not used: what is not well formed answers 400."},
    503: {"model": shapes.Problem, "description": "The store does not answer, or no worker has announced rules yet."},
}


def json_answer(value: Any, status: int = 200) -> Response:
    """An answer. What is told of a person is not for caches to keep."""
    return Response(orjson.dumps(value), status, {"cache-control": "no-store"}, "application/json")


def problem(status: int, code: str, message: str) -> Response:
    """A refusal."""
    return json_answer({"code": code, "message": message}, status)
