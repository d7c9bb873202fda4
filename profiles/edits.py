"""Edits: what an authorised person states of a customer by hand, or takes back (traits and consents).

An edit is a statement like any other, made at the instant of its command: what is said later replaces it, and
what was said before does not come back, however late it is told. Its source names who edited and why, so the profile
itself shows it, and an erasure takes it along. What is taken back stands as a statement of nothing.

    body = pack_edit(Edit("support-7", "typo", set={"first_name": "Ana"}, unset=("gender",)))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from profiles import consent, people
from profiles.errors import BadInput
from profiles.ids import normal
from profiles.moments import zone_named
from profiles.state import CONSENTS, TRAITS, TRAITS_MAX, Consent, Profile, Trait

NAMES_MAX: Final = 50
NAME_CHARS_MAX: Final = 200
VALUE_CHARS_MAX: Final = 1_000
WORDS_CHARS_MAX: Final = 200
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}(T.*)?$")
STATES: Final = ("granted", "denied", None)


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to be changed, by whom and why.

    Attributes:
        by: who edits, as the shop knows its staff.
        why: the reason.
        set: trait -> value: text, number, truth, or a list of these.
        unset: traits to be taken back.
        consents: ``channel:topic`` -> ``granted``, ``denied``, or ``None`` to take it back.
        lists: static segment -> whether the customer is in it from now on.
    """

    by: str
    why: str
    set: Mapping[str, Any] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    consents: Mapping[str, str | None] = field(default_factory=dict)
    lists: Mapping[str, bool] = field(default_factory=dict)


BY_HAND: Final = "edit by "
"""How the source of an edited statement begins."""


def pack_edit(edit: Edit) -> bytes:
    """An edit as a command's body.

    Raises:
        BadInput: ``malformed``; it says what is wrong and never a value.
    """
    _check(edit)
    told = {"by": edit.by, "why": edit.why, "set": edit.set, "unset": edit.unset, "consents": edit.consents}
    return orjson.dumps({**told, "lists": edit.lists} if edit.lists else told)


def read_edit(body: bytes) -> Edit:
    """Read a command's body.

    Raises:
        BadInput: ``malformed``: not an edit.
    """
    try:
        raw = orjson.loads(body)
        edit = Edit(raw["by"], raw["why"], raw["set"], tuple(raw["unset"]), raw["consents"], raw.get("lists", {}))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise BadInput("malformed", f"edit: by, why, set, unset and consents wanted, {type(error).__name__}") from None
    _check(edit)
    return edit


def _check(edit: Edit) -> None:
    def wanted(holds: bool, what: str) -> None:
        if not holds:
            raise BadInput("malformed", f"edit: {what} wanted, got something else")

    for word in (edit.by, edit.why):
        wanted(
            type(word) is str and 0 < len(word) <= WORDS_CHARS_MAX, f"1 to {WORDS_CHARS_MAX} characters in by and why"
        )
    is_sound = all(isinstance(one, Mapping) for one in (edit.set, edit.consents, edit.lists))
    wanted(is_sound, "objects in set, consents and lists")
    names = [*edit.set, *edit.unset, *edit.consents, *edit.lists]
    wanted(0 < len(names) <= NAMES_MAX, f"1 to {NAMES_MAX} names")
    wanted(len(set(map(str, names))) == len(names), "each name once")
    for name in names:
        wanted(type(name) is str and 0 < len(name) <= NAME_CHARS_MAX, f"names of 1 to {NAME_CHARS_MAX} characters")
    wanted(people.REGISTERED_AT not in edit.unset, "registered_at among what is set, never taken back,")
    for name, value in edit.set.items():
        known = _KNOWN.get(name)
        wanted(known is None or known[0](value), f"{known[1]} as {name}" if known is not None else "")
    for value in edit.set.values():
        wanted(
            _is_value(value),
            f"a text of at most {VALUE_CHARS_MAX} characters, a number, true or false, or a list of these",
        )
    wanted(all(type(joins) is bool for joins in edit.lists.values()), "true or false in lists")
    for name, state in edit.consents.items():
        channel, colon, topic = name.partition(":")
        wanted(bool(channel and colon and topic), "a consent's name like email:sale or email:*")
        wanted(state in STATES, "granted, denied or null as a consent")


def _names_one(kind: str) -> Callable[[Any], bool]:
    """Whether a value names somebody as that kind of address does; the collector keeps what does not, and finds nobody by it."""

    def does(value: Any) -> bool:
        try:
            return isinstance(value, str) and bool(normal(kind, value))
        except ValueError:
            return False

    return does


def _is_date(value: Any) -> bool:
    return isinstance(value, str) and _DATE.match(value) is not None and people.instant_of(value) is not None


def _is_zone(value: Any) -> bool:
    try:
        return isinstance(value, str) and zone_named(value) is not None
    except ValueError:
        return False


_KNOWN: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "email": (_names_one("email"), "an address like a@b.c"),
    "phone": (_names_one("phone"), "E.164 like +79161234567"),
    "birth_date": (_is_date, "a date like 1990-03-15"),
    "timezone": (_is_zone, "a time zone like Europe/Berlin"),
    people.REGISTERED_AT: (lambda value: people.instant_of(value) is not None, "an instant, ISO 8601 or epoch ms,"),
}
"""Traits that the engine reads by their meaning -> whether this is one, and what is wanted: a slip of the pen would be kept
in silence. Fields that the rules declare are checked where the rules are (rules/persons.py)."""


def _is_value(value: Any) -> bool:
    if isinstance(value, list):
        return 0 < len(value) <= NAMES_MAX and all(_is_value(one) and not isinstance(one, list) for one in value)
    if isinstance(value, str):
        return 0 < len(value) <= VALUE_CHARS_MAX
    return isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63)


def edited(profile: Profile, edit: Edit, at_ms: int) -> dict[str, list[str]]:
    """Make these statements, at that instant; say so in ``dirty``.

    Returns:
        Names by what became of them: ``set``, ``unset``, ``consents``; ``newer``: something later was said already;
        ``no_room``: the profile holds as many traits as it may.
    """
    source = f"{BY_HAND}{edit.by}: {edit.why}"
    done: dict[str, list[str]] = {"set": [], "unset": [], "consents": [], "newer": [], "no_room": []}
    statements = [("set", name, value) for name, value in edit.set.items()]
    statements += [("unset", name, None) for name in edit.unset]
    for what, name, value in statements:
        stated = people.instant_of(value) if name == people.REGISTERED_AT else value
        done[_state(profile.traits, name, Trait(stated, at_ms, source), what)].append(name)
    for name, state in edit.consents.items():
        statement = consent.after(profile.consents.get(name), Consent(state, at_ms, source))
        done[_state(profile.consents, name, statement, "consents")].append(name)
    if done["set"] or done["unset"]:
        profile.dirty |= TRAITS
    if done["consents"]:
        profile.dirty |= CONSENTS
    return done


def _state(said: dict[str, people.Said], name: str, statement: people.Said, what: str) -> str:
    known = said.get(name)
    if known is not None:
        is_edit = known.source.startswith(
            BY_HAND
        )  # Two of one instant: whichever comes first, the same one stands (R20).
        if known.at_ms > statement.at_ms or (is_edit and people.newer(known, statement)):
            return "newer"
    if known is None and len(said) >= TRAITS_MAX:
        return "no_room"
    said[name] = statement
    return what
