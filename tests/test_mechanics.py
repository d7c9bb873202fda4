"""The page of what is shown is current, and no test claims a row that does not exist."""

from __future__ import annotations

from tests.mechanics import PAGE, marked, page, rows


def test_the_page_of_what_is_shown_is_current() -> None:
    assert PAGE.read_text("utf-8") == page(), "out of date: run `python -m tests.mechanics`"


def test_every_mark_names_a_row() -> None:
    known = {row for part in rows().values() for row in part}
    assert not set(marked()) - known


def test_every_row_is_there_once() -> None:
    names = [row for part in rows().values() for row in part]
    assert names == [f"M{n}" for n in range(1, 100)] + [f"D{n}" for n in range(1, 13)] + [f"R{n}" for n in range(1, 31)]


def test_a_row_is_a_title_and_perhaps_what_is_left_to_show() -> None:
    for part in rows().values():
        for row, said in part.items():
            assert {"title"} <= set(said) <= {"title", "rest"}, row
            assert all(isinstance(text, str) for text in said.values()), row
