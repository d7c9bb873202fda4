"""A greeting that is right for everybody (M86)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.greeting import greeting, name_of
from profiles.state import Trait
from rules.scenarios import check


def said(**traits: Any) -> dict[str, Trait]:
    return {name: Trait(value, 0, "s") for name, value in traits.items()}


@pytest.mark.mechanic("M86")
@pytest.mark.parametrize(
    ("traits", "wanted"),
    [
        ({"first_name": "Ana"}, "Hello, Ana!"),
        ({"first_name": "  ANA "}, "Hello, Ana!"),
        ({"first_name": "anna-maria"}, "Hello, Anna-Maria!"),
        ({"first_name": "O'Hara"}, "Hello, O'Hara!"),
        ({"first_name": "McKay"}, "Hello, McKay!"),
        ({"first_name": "иван"}, "Здравствуйте, Иван!"),
        ({"first_name": "Иван", "locale": "en-GB"}, "Hello, Иван!"),
        ({"name": "Иванов Иван Петрович"}, "Здравствуйте, Иван!"),
        ({"name": "Мария Кюри"}, "Здравствуйте, Мария!"),
        ({"name": "Kask, Ana"}, "Hello, Ana!"),
        ({"first_name": "ana@shop.example", "name": "Ana Kask"}, "Hello, Ana!"),
        ({"locale": "ru_RU"}, "Здравствуйте!"),
        *(
            ({"first_name": odd}, "Hello!")
            for odd in ("", " ", "A", "aaa", "test", "Guest", "NULL", "x1", "ana@x.com", "+79161234567", "{{name}}")
        ),
        *(
            ({"first_name": odd}, "Hello!")
            for odd in (7, True, ["Ana"], "<b>Ana</b>", "Ana\r\nBcc: x", "Тест", "a" * 40)
        ),
    ],
)
def test_a_name_is_used_only_when_it_looks_like_one(traits: dict[str, Any], wanted: str) -> None:
    assert greeting(said(**traits), "en") == wanted


@pytest.mark.mechanic("M86")
def test_where_neither_locale_nor_letters_tell_the_shop_does() -> None:
    assert greeting(said(first_name="Ana"), "ru") == "Здравствуйте, Ana!"
    assert greeting(said(locale="de"), "ru") == "Здравствуйте!"
    assert greeting({}, "") == "Hello!"


@given(st.text(), st.text(), st.text())
def test_whatever_is_typed_it_is_one_line_without_a_gap(first: str, full: str, locale: str) -> None:
    line = greeting(said(first_name=first, name=full, locale=locale), "en")
    assert line.endswith("!")
    assert "{" not in line
    assert ", !" not in line
    assert len(line.splitlines()) == 1
    name = name_of(said(first_name=first, name=full))
    assert name is None or (name in line and not any(one.isdigit() or one in "<>@&" for one in name))


@pytest.mark.mechanic("M86")
def test_every_message_bears_it_and_the_zone_it_is_read_in() -> None:
    done = check(
        """
        defaults = {zone: Europe/Riga, locale: ru}
        trigger it = {on: {event: registered}, steps: [{emit: hi}]}
        0d  ana  registered
        0d  bob  registered first_name=bob timezone=Asia/Tokyo
        0d  ana  expect emits it 1
        """
    )
    sent = [json.loads(one.record.value) for one in done.world.published if one.record.topic == "triggers.it"]
    assert [(one["profile"]["greeting"], one["send"]["zone"]) for one in sent] == [
        ("Здравствуйте!", "Europe/Riga"),
        ("Здравствуйте, Bob!", "Asia/Tokyo"),
    ]
