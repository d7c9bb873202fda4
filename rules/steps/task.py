"""``task: {queue: call_center, title: …, due: PT4H, payload: {said: $event.text}}``: something for a person to do. It is a moment, with its decision.

Its payload is as that of a message, but that no list of goods is wanted, and a coupon goes with a message only.
"""

from __future__ import annotations

from typing import Any

from rules.documents import Node
from rules.program import Maker, StepSpec, Task
from rules.words import Tongue


def _compile(node: Node, maker: Maker) -> None:
    node.known(("queue", "title", "due", "assignee", "payload"), required=("queue", "title"))
    queue, title, due, assignee, about = (node.get(key) for key in ("queue", "title", "due", "assignee", "payload"))
    maker.program.append(
        Task(
            maker.next_step(),
            title.text() if title is not None else "",
            queue.text() if queue is not None else "",
            assignee.text() if assignee is not None else "",
            due.duration() if due is not None else None,
            maker.payload(about),
        )
    )


def _words(asked: Any, t: Tongue) -> str:
    within = t.pick(" within ", " за ") + t.duration(asked["due"]) if "due" in asked else ""
    return (
        t.pick(
            f"task for {asked.get('queue')}: {asked.get('title')}",
            f"задача для {asked.get('queue')}: {asked.get('title')}",
        )
        + within
    )


SPEC = StepSpec(
    "task",
    "Something for a person to do, on the topic `tasks`: `{queue: managers, title: Call, due: P2D, assignee: …, payload: {said: $event.text}}`; what goes in a payload, see above.",
    _compile,
    _words,
    (
        """
        trigger it = {class: transactional, on: {event: survey_answered, where: {score: {lte: 6}}}, steps: [{task: {queue: call_center, title: unhappy, due: PT4H}}]}
        0d  ana  survey_answered question=nps score=9
        0d  ana  expect tasks it 0
        1d  ana  survey_answered question=nps score=3
        1d  ana  expect suppressed it emitted 1, tasks it 1
        """,
    ),
)
