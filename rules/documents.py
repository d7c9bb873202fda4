"""Rule files as they are written: YAML in which everything knows its line, and mistakes are gathered, not raised.

Rules are data (RELIABILITY R29): a closed grammar, no tags, no anchors, bounded size and depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import time
from decimal import Decimal
from typing import Any, Final

import yaml

from profiles.errors import Mistake
from profiles.moments import DAY_MS, Duration, parse_duration
from profiles.money import decimal_of
from rules.slips import curly, did_you_mean, glued, hours_meant, length_meant, of_yaml, without

FILE_BYTES_MAX: Final = 1_000_000
DEPTH_MAX: Final = 40
BROKEN_MAX: Final = 10
"""Entries that are no YAML: with more, the rest of a file is not looked at."""
_KEYS_TOLD: Final = 3
"""Of a mapping, where something else is wanted."""
KEY: Final = "$key"
"""What tells the journeys of a trigger apart, in its `when` and its payloads."""
_CONTAINERS: Final = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class Node:
    """A value in a document with its place. Asking it for what it is not records a mistake and gives a default.

    Attributes:
        value: a scalar, ``dict[str, Node]`` or ``list[Node]``.
        file, line: where it stands, from 1.
        where: the path to it, ``segments/vip/when``.
        mistakes: the list that all nodes of a load share.
    """

    __slots__ = ("file", "line", "mistakes", "value", "where")

    def __init__(self, value: Any, file: str, line: int, where: str, mistakes: list[Mistake]) -> None:
        self.value = value
        self.file = file
        self.line = line
        self.where = where
        self.mistakes = mistakes

    def wrong(self, message: str) -> None:
        """Record a mistake at this place."""
        self.mistakes.append(Mistake(self.file, self.line, self.where, message))

    def __iter__(self) -> Iterator[Node]:
        """The elements of a list; of anything else, itself: a single value stands for a list of one."""
        if isinstance(self.value, list):
            return iter(self.value)
        return iter([self])

    def made(self, value: Any) -> Node:
        """Another value, at this place: what a rule stands for."""
        return Node(value, self.file, self.line, self.where, self.mistakes)

    def is_map(self) -> bool:
        """Whether it is a mapping."""
        return isinstance(self.value, dict)

    def items(self) -> list[tuple[str, Node]]:
        """The entries of a mapping, in the order written."""
        if isinstance(self.value, dict):
            return list(self.value.items())
        self.wrong(f"a mapping wanted, got {self.found()}")
        return []

    def get(self, key: str) -> Node | None:
        """An entry of a mapping, or ``None``."""
        if isinstance(self.value, dict):
            node: Node | None = self.value.get(key)
            return node
        return None

    def part(self, key: str) -> list[tuple[str, Node]]:
        """The entries of a mapping in this one; none where nothing stands there."""
        node = self.get(key)
        return node.items() if node is not None and node.value is not None else []

    def known(self, keys: Iterable[str], required: Iterable[str] = ()) -> None:
        """Record unknown keys (with the likeliest one meant) and missing ones."""
        allowed = list(keys)
        for key, node in self.items():
            if key not in allowed:
                meant = did_you_mean(key, allowed) or f"; one of {', '.join(allowed)} wanted"
                node.wrong(f"unknown key {key!r}{meant}")
        for key in required:
            if self.is_map() and key not in self.value:
                self.wrong(f"{key!r} is missing")

    def text(self, default: str = "") -> str:
        """A text; numbers are taken as they are written."""
        if isinstance(self.value, str):
            return self.value
        if isinstance(self.value, int | Decimal) and not isinstance(self.value, bool):
            return str(self.value)
        self.wrong(f"text wanted, got {self.found()}")
        return default

    def texts(self) -> list[str]:
        """One text, or a list of them."""
        return [node.text() for node in self]

    def choice(self, options: Iterable[str]) -> str:
        """One of these words."""
        words = list(options)
        text = self.value if isinstance(self.value, str) else ""
        if text not in words:
            self.wrong(f"one of {', '.join(words)} wanted, got {self.found()}{did_you_mean(text, words)}")
            return words[0]
        return text

    def integer(self, least: int | None = None, most: int | None = None, default: int = 0) -> int:
        """A whole number within bounds."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self.wrong(f"a whole number wanted, got {self.found()}")
            return default
        if least is not None and self.value < least:
            self.wrong(f"must be {least} or more, got {self.value}")
        if most is not None and self.value > most:
            self.wrong(f"must be {most} or less, got {self.value}")
        return self.value

    def number(self, wanted: str = "a number") -> Decimal:
        """A number, exactly as written; ``wanted``: of what, in words."""
        try:
            if isinstance(self.value, bool | dict | list):
                raise ValueError
            return decimal_of(self.value)
        except ValueError:
            self.wrong(f"{wanted} wanted, got {self.found()}")
            return Decimal(0)

    def truth(self) -> bool:
        """``true`` or ``false``."""
        if isinstance(self.value, bool):
            return self.value
        self.wrong(f"true or false wanted, got {self.found()}")
        return False

    def duration(self) -> Duration:
        """A duration, longer than nothing."""
        try:
            if not isinstance(self.value, str):
                raise ValueError(f"a duration like P3M, P7D, PT2H or 30m wanted, got {self.found()}")
            duration = parse_duration(self.value)
        except ValueError as error:
            self.wrong(f"{error}{length_meant(self.value)}")
            return Duration(days=1)
        if duration.about_ms() <= 0:
            self.wrong(f"a duration above zero wanted, got {self.value!r}")
            return Duration(days=1)
        return duration

    def length_ms(self, like: str) -> int:
        """A length of time that is the same on every day: hours, minutes, seconds. ``like``: an example."""
        try:
            length = parse_duration(self.text())
        except ValueError:
            length = Duration()
        if length.is_fixed() and length.ms > 0:
            return length.ms
        self.wrong(f"hours, minutes or seconds wanted, like {like}, got {self.found()}{hours_meant(self.value)}")
        return max(length.about_ms(), DAY_MS)

    def wall_time(self) -> time:
        """A time of day, like '10:00'."""
        try:
            return time.fromisoformat(self.text())
        except ValueError:
            self.wrong(f"a wall time like '10:00' wanted, got {self.found()}")
            return time(0)

    def scalar(self) -> Any:
        """A text, number or truth, as written."""
        if isinstance(self.value, dict | list):
            self.wrong(f"a single value wanted, got {self.found()}")
            return None
        if self.value == KEY:
            self.wrong(f"{KEY}: goes in a trigger's `when` and in payloads only")
        return self.value

    def found(self) -> str:
        """What stands here, for a message."""
        if isinstance(self.value, dict):
            keys = [f"{key}: …" for key in self.value]
            return "{" + ", ".join(keys[:_KEYS_TOLD] + ["…"] * (len(keys) > _KEYS_TOLD)) + "}"
        if isinstance(self.value, list):
            return "a list"
        if self.value is None:
            return "nothing"
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        return repr(self.value) if isinstance(self.value, str) else str(self.value)

    def plain(self) -> Any:
        """The value without places: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


class _TooMuch(yaml.YAMLError):
    """A file that is refused whole, for what it could become: the line, from 1, and why."""

    def __init__(self, line: int, told: str) -> None:
        super().__init__(told)
        self.line = line


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses what makes a small file large, or deep enough to exhaust the stack."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]  # PyYAML's stubs leave its type out
        if self.check_event(yaml.AliasEvent):
            raise _TooMuch(line, "anchors and aliases are not read: write it out")
        if self.depth > DEPTH_MAX + 1:
            raise _TooMuch(line, f"at most {DEPTH_MAX} levels wanted, got more")
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse(text: str, file: str, mistakes: list[Mistake]) -> Node | None:
    """Read one YAML file into nodes; an entry that YAML itself refuses is one mistake, and left out."""
    if len(text) > FILE_BYTES_MAX:
        mistakes.append(Mistake(file, 1, "", f"at most {FILE_BYTES_MAX} characters wanted, got {len(text)}"))
        return None
    lines = text.splitlines()
    for _ in range(BROKEN_MAX):
        try:
            root = yaml.compose(text, Loader=_Loader)
        except _TooMuch as error:
            mistakes.append(Mistake(file, error.line, "", str(error)))
            return None
        except yaml.MarkedYAMLError as error:
            line, told, since = of_yaml(error, lines)
            mistakes.append(Mistake(file, line, "", told))
            lines = without(lines, since)
            text = "\n".join(lines)
        except yaml.YAMLError as error:
            mistakes.append(Mistake(file, 1, "", f"not YAML: {type(error).__name__}"))
            return None
        else:
            return _read(root, file, "", mistakes, 0) if root is not None else None
    return None


def _read(node: yaml.Node, file: str, where: str, mistakes: list[Mistake], depth: int) -> Node:
    line = node.start_mark.line + 1
    if depth > DEPTH_MAX:
        mistakes.append(Mistake(file, line, where, f"at most {DEPTH_MAX} levels wanted, got more"))
        return Node(None, file, line, where, mistakes)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _CONTAINERS:
        mistakes.append(Mistake(file, line, where, f"plain values wanted, got the tag {node.tag!r}"))
    if isinstance(node, yaml.MappingNode):
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            # YAML 1.1 reads a bare `on` as true; here it is the key that it looks like.
            path = f"{where}/{key}" if where else key
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                mistakes.append(Mistake(file, key_line, where, "a key must be a single word"))
                continue
            if key_node.style is None and (sign := glued(key)):
                mistakes.append(Mistake(file, key_line, where, f"a space wanted after {sign!r}, got {key!r}"))
                continue
            if key in entries:
                mistakes.append(Mistake(file, key_line, where, f"key {key!r} stands twice"))
            value = _read(value_node, file, path, mistakes, depth + 1)
            value.line = key_line
            entries[key] = value
        return Node(entries, file, line, where, mistakes)
    if isinstance(node, yaml.SequenceNode):
        return Node(
            [_read(one, file, f"{where}/{i + 1}", mistakes, depth + 1) for i, one in enumerate(node.value)],
            file,
            line,
            where,
            mistakes,
        )
    return Node(_scalar(node, file, line, where, mistakes), file, line, where, mistakes)


def _scalar(node: Any, file: str, line: int, where: str, mistakes: list[Mistake]) -> Any:
    tag, text = node.tag.rpartition(":")[2], node.value
    if tag == "null":
        return None
    if tag == "bool":
        # YAML 1.1 has six more words for the two, and so takes Norway for false.
        return text.lower() == "true" if text.lower() in ("true", "false") else text
    if tag == "int":
        try:
            return int(text.replace("_", ""), 10)
        except ValueError:
            return text
    if tag == "float":
        try:
            return decimal_of(text.replace("_", ""))
        except ValueError:
            mistakes.append(Mistake(file, line, where, f"a number wanted, got {text!r}"))
            return None
    if tag in ("str", "timestamp"):
        if node.style is None and curly(text):
            mistakes.append(Mistake(file, line, where, f"plain quotes wanted, got {text[0]}{text[-1]}"))
        return text
    mistakes.append(Mistake(file, line, where, f"plain values wanted, got the tag {node.tag!r}"))
    return None
