"""``all``, ``any``, ``not``: rules made of rules, to any depth."""

from __future__ import annotations

from typing import Any

from rules.documents import Node
from rules.spec import Judged, OperatorSpec, RuleExample, Scope
from rules.verdict import NO, all_of, any_of, negated
from rules.words import Tongue


def _all(node: Node, scope: Scope) -> Judged:
    return _several(node, scope, "all")


def _any(node: Node, scope: Scope) -> Judged:
    return _several(node, scope, "any")


def _several(node: Node, scope: Scope, name: str) -> Judged:
    inside = node.get(name)
    assert inside is not None
    children = tuple(scope.rule(one) for one in inside)
    if not children:
        inside.wrong(f"{name}: at least one rule wanted, got none")
        return Judged(name, name, lambda profile, now_ms: NO, frozenset())
    # One that is itself of this kind is asked part by part: the answer is the same, and how long it stays true.
    judges = tuple(one.judge for child in children for one in _parts(child, name))
    reads = frozenset().union(*(child.reads for child in children))
    return Judged(
        name,
        f"{name} of these",
        all_of(judges) if name == "all" else any_of(judges),
        reads,
        children,
        least=len(children) if name == "all" else 1,
    )


def _parts(judged: Judged, name: str) -> tuple[Judged, ...]:
    """The rules that all must hold, or any, where they stand as one in another of the same."""
    if judged.op != name or not judged.children:
        return (judged,)
    return tuple(part for child in judged.children for part in _parts(child, name))


def _not(node: Node, scope: Scope) -> Judged:
    inside = node.get("not")
    assert inside is not None
    child = scope.rule(inside)
    return Judged("not", "not", negated(child.judge), child.reads, (child,), least=1)


def _words_all(rule: dict[str, Any], t: Tongue) -> str:
    return t.several(rule["all"] if isinstance(rule["all"], list) else [rule["all"]], t.pick("and", "и"))


def _words_any(rule: dict[str, Any], t: Tongue) -> str:
    return t.several(rule["any"] if isinstance(rule["any"], list) else [rule["any"]], t.pick("or", "или"))


def _words_not(rule: dict[str, Any], t: Tongue) -> str:
    return t.pick("not ", "не ") + t.rule(rule["not"], inside=True)


SPEC = (
    OperatorSpec(
        "all",
        "Every rule in the list holds.",
        (),
        _all,
        (
            RuleExample(
                "{all: [{did: product_viewed}, {did: product_added}]}",
                """
                0d  ana  product_viewed
                0d  ana  expect out
                1d  ana  product_added
                1d  ana  expect in
                """,
            ),
        ),
        words=_words_all,
    ),
    OperatorSpec(
        "any",
        "At least one rule in the list holds.",
        (),
        _any,
        (
            RuleExample(
                "{any: [{did: product_viewed, window: {within: P1D}}, {did: product_added, window: {within: P2D}}]}",
                """
                0h   ana  product_viewed
                1h   ana  product_added
                1h   ana  expect in
                24h  ana  expect in
                49h  ana  expect out
                """,
            ),
        ),
        words=_words_any,
    ),
    OperatorSpec(
        "not",
        "The rule does not hold.",
        (),
        _not,
        (
            RuleExample(
                "{not: {did: product_viewed, window: {within: P1D}}}",
                """
                0h   ana  product_viewed
                0h   ana  expect out
                24h  ana  expect in
                """,
            ),
        ),
        words=_words_not,
    ),
)
