"""Fields of the shop's own: their types, where they come from, and which source goes before which."""

from __future__ import annotations

import pytest

from profiles.wire import DECISIONS
from rules.scenarios import check


@pytest.mark.mechanic("M21")
def test_a_mark_from_1_to_10_is_checked_when_it_is_told_and_what_is_none_leaves_a_decision() -> None:
    done = check(
        """
        trait custom.mark = {said: int, between: [1, 10]}
        segment low = {trait: custom.mark, lte: 6}
        segment unmarked = {trait: custom.mark, missing: true}
        0d  ana  page_viewed
        0d  ana  expect segments unmarked
        1d  ana  identified custom.mark=11 name=Ana message=bad
        1d  ana  expect suppressed trait bad_value, segments unmarked
        2d  ana  identified custom.mark=6
        2d  ana  expect segments low
        3d  ana  identified custom.mark=7.5
        4d  ana  identified custom.mark=splendid
        4d  ana  expect suppressed trait bad_value 3, segments low
        """
    )
    told = next(one.value for one in done.world.published if one.record.topic == DECISIONS)
    assert (told["step"], told["reason"]) == ("custom.mark", "bad_value")
    # What was told is nowhere in it, only what was wanted.
    assert told["detail"] == {
        "wanted": "a whole number from 1 to 10", "event": "identified", "message_id": "bad",
    }  # fmt: skip
    assert done.world.profile("user:ana").traits["name"].value == "Ana"


@pytest.mark.mechanic("M21")
def test_fields_have_types_money_dates_truths_and_values_that_there_are() -> None:
    check(
        """
        trait custom.limit = {said: money}
        trait custom.since = {said: date}
        trait custom.club = {said: bool}
        trait custom.shirt = {said: enum, of: [s, m, l]}
        segment rich = {trait: custom.limit, gte: 100.50}
        segment old = {trait: custom.since, older_than: P1Y}
        segment club = {trait: custom.club, eq: true}
        segment small = {trait: custom.shirt, in: [s, m]}
        0d    ana  identified custom.limit=100.49 custom.since=2025-06-01 custom.club=yes custom.shirt=xl
        0d    ana  expect suppressed trait bad_value 2, trait custom.limit 100.49, trait custom.since 2025-06-01
        0d    ana  expect segments none
        1d    ana  identified custom.limit=100.50 custom.club=true custom.shirt=m custom.since=soon
        1d    ana  expect suppressed trait bad_value 3
        1d    ana  expect segments club, rich, small
        151d  ana  expect segments club, old, rich, small
        151d  ana  expect entered old 151d
        """
    )


@pytest.mark.mechanic("M11")
def test_a_better_source_is_not_overwritten_by_a_worse_one_however_late_or_new() -> None:
    rules = """
        trait address.city = {said: text, sources: [order_completed, registered, survey_answered], from: [{event: order_completed, field: custom.city}, {event: survey_answered, where: [{question: city}], field: text}]}
        segment bonn = {trait: address.city, eq: Bonn}
    """
    check(
        rules
        + """
        0d  ana  survey_answered question=city text=Kiel
        0d  ana  expect trait address.city Kiel
        1d  ana  registered address.city=Ulm
        2d  ana  survey_answered question=city text=Kiel        # newer, but worse
        2d  ana  expect trait address.city Ulm
        3d  ana  order_completed order_id=1 total=10 city=Bonn
        4d  ana  registered address.city=Ulm
        5d  ana  identified address.city=Jena
        5d  ana  expect trait address.city Bonn, in
        6d  ana  order_completed order_id=2 total=10 city=Mainz late=4d   # as good, but older
        6d  ana  expect trait address.city Bonn
        7d  ana  order_completed order_id=3 total=10 city=Mainz
        7d  ana  expect trait address.city Mainz, out
        """
    )
    # Two profiles that are one person: the same, whoever takes in whom.
    check(
        rules
        + """
        0d  anon:x  order_completed order_id=1 total=10 city=Bonn
        1d  ana     registered address.city=Ulm
        2d  ana     page_viewed id=anon:x
        2d  ana     expect trait address.city Bonn, in
        """
    )


@pytest.mark.mechanic("M28")
def test_answers_with_several_values_are_asked_for_any_or_all_of_them() -> None:
    check(
        """
        trait survey.genres = {said: list, of: [jazz, rock, folk], from: {event: survey_answered, where: [{question: genres}], field: custom.answers}}
        trait survey.skin = {said: enum, of: [dry, oily], from: {event: survey_answered, where: [{question: skin}], field: code}}
        segment any = {trait: survey.genres, contains_any: [jazz, folk]}
        segment both = {trait: survey.genres, contains_all: [jazz, rock]}
        segment dry = {trait: survey.skin, eq: dry}
        0d  ana  survey_answered question=skin code=dry
        0d  ana  expect segments dry
        1d  ana  survey_answered question=genres answers=jazz
        1d  ana  expect segments any, dry
        2d  ana  survey_answered question=skin code=green
        2d  ana  expect suppressed trait bad_value
        2d  ana  expect segments any, dry
        3d  ana  survey_answered question=genres answers=[rock|jazz]
        3d  ana  expect segments any, both, dry
        4d  ana  survey_answered question=genres answers=[rock|polka]
        4d  ana  expect segments any, both, dry
        """
    )
