"""Commands about people, and their receipts: edits, erasures, un-merges. Each goes to the worker that owns the profile."""

from __future__ import annotations

from typing import Final, NamedTuple

from fastapi import Depends, FastAPI, Response

from console import shapes
from console.answers import PROBLEMS, Asked, json_answer
from console.callers import Callers
from console.commands import Commands
from console.routes.admission import may
from console.unmerge import Parter
from profiles.edits import Edit
from rules.undo import NotExact

WITHIN_S: Final = 30.0
"""How long an un-merge may wait for the worker; the others do not wait."""

RECEIPT: Final = {
    "operationRef": "#/paths/~1api~1v1~1receipts~1%7Bcommand%7D/get",
    "parameters": {"command": "$response.body#/command"},
    "description": "What became of it.",
}
"""How the answer to a command leads to its receipt, in OpenAPI's words."""


class Desk(NamedTuple):
    """Who takes commands about people."""

    commands: Commands
    parter: Parter


def people(app: FastAPI, desk: Desk | None, callers: Callers) -> None:
    """The routes; without a desk they refuse."""

    def staffed() -> Desk:
        if desk is None:
            raise Asked(403, "read_only", "commands: an API that takes them wanted, got one that only reads")
        return desk

    admission = Depends(staffed)
    taken = {**PROBLEMS, 202: {"links": {"receipt": RECEIPT}}}
    may_write, may_erase = [may(callers, "write")], [may(callers, "erase")]

    @app.post("/api/v1/edits", status_code=202, response_model=shapes.Taken, responses=taken, dependencies=may_write)
    async def edit(asked: shapes.EditAsked, at: Desk = admission) -> Response:
        """State traits and consents of a person by hand, or take them back."""
        said = Edit(asked.by, asked.why, asked.set, tuple(asked.unset), asked.consents)
        return json_answer({"command": await at.commands.edit(asked.address, said, asked.id)}, 202)

    @app.post("/api/v1/erasures", status_code=202, response_model=shapes.Taken, responses=taken, dependencies=may_erase)
    async def erase(asked: shapes.Asked, at: Desk = admission) -> Response:
        """Erase a person with all addresses, for good."""
        return json_answer({"command": await at.commands.erase(asked.address, asked.by, asked.id)}, 202)

    @app.post(
        "/api/v1/unmerges",
        dependencies=may_write,
        response_model=shapes.Receipt,
        responses={**PROBLEMS, 409: {"model": shapes.Problem, "description": "It cannot be done exactly."}},
    )
    async def unmerge(asked: shapes.Asked, at: Desk = admission) -> Response:
        """Part two profiles that were merged by mistake, as if they never had been; or say why that cannot be."""
        try:
            return json_answer(await at.parter.unmerge(asked.address, asked.by, WITHIN_S, asked.id))
        except NotExact as error:
            raise Asked(409, error.reason, str(error)) from None

    @app.get(
        "/api/v1/receipts/{command}",
        dependencies=[may(callers, "write", "erase")],
        response_model=shapes.Receipt,
        responses={**PROBLEMS, 404: {"model": shapes.Problem, "description": "None yet, or more than 30 days ago."}},
    )
    async def receipt(command: str, at: Desk = admission) -> Response:
        """What became of a command of the last 30 days."""
        found = await at.commands.receipt(command)
        if found is None:
            raise Asked(404, "no_receipt", "command: one that was taken in the last 30 days wanted, got another")
        return json_answer(found)
