"""``split: {experiment: pick, arms: {a: 45, b: 45, control: 10}}``: which variant of an experiment somebody is in.

Drawn once, by a hash of the address that met the experiment first, and remembered; of two addresses that turn out to be
one person the older word stands. An arm called ``control`` is told nothing: its moments are held back as ``control``.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Final

from profiles.ids import digest64
from profiles.state import Instance, Profile
from rules.documents import Node
from rules.program import Act, Maker, StepSpec
from rules.words import Tongue

ARMS_MAX: Final = 20


def _compile(node: Node, maker: Maker) -> None:
    node.known(("experiment", "arms"), required=("experiment", "arms"))
    named, arms = node.get("experiment"), node.get("arms")
    if named is None or arms is None:
        return
    experiment = named.text()
    shares = [one.integer(least=1, most=100, default=1) for _, one in arms.items()]
    names = [name for name, _ in arms.items()]
    if sum(shares) != 100 or len(names) > ARMS_MAX:
        arms.wrong(f"at most {ARMS_MAX} arms, of 100 percent together, wanted, got {len(names)} of {sum(shares)}")
        return
    ends = list(accumulate(shares))
    kept = f"arm:{experiment}"
    maker.arms.update(dict.fromkeys(names))

    def act(profile: Profile, run: Instance, now_ms: int) -> None:
        known = profile.entries.get(kept)
        if known is None or known[1] >= len(names):
            place = digest64(f"split\x1f{experiment}\x1f{profile.address}") % 100
            # The earlier, the greater: of two at a join the greater stands.
            known = profile.entries[kept] = [-now_ms, next(i for i, end in enumerate(ends) if place < end), 0]
        arm = run.context["arm"] = names[known[1]]
        run.context["experiment"] = {"id": experiment, "arm": arm}

    maker.program.append(Act(act))


def _words(asked: Any, t: Tongue) -> str:
    arms = ", ".join(f"{name} {share} %" for name, share in asked.get("arms", {}).items())
    return t.pick(f"split at random ({arms})", f"поделить случайно ({arms})")


SPEC = StepSpec(
    "split",
    "Puts the customer into an arm of an experiment, always the same one; `$arm` and `{arm}` name it. The arm `control` is sent nothing.",
    _compile,
    _words,
    (
        """
        trigger it = {on: {event: registered}, steps: [{split: {experiment: e, arms: {a: 50, b: 50}}}, {emit: "hello_{arm}"}]}
        0d  ana  registered
        0d  eve  registered
        0d  ana  expect emits it/hello_b 1
        0d  eve  expect emits it/hello_a 1
        1d  ana  registered
        1d  ana  expect emits it/hello_b 2
        """,
    ),
)
