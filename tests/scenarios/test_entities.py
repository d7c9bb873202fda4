"""Children and pets, ages and birthdays, to the midnight; and the one that a message is about."""

from __future__ import annotations

import pytest

from rules.scenarios import check


@pytest.mark.mechanic("M29")
@pytest.mark.mechanic("M38")
def test_parents_leave_on_the_third_birthday_and_come_back_with_a_younger_child() -> None:
    check(
        """
        segment toddler_parents = {any_item: children, where: {birth_date: {newer_than: P3Y}}}
        segment outgrown = {all: [{trait: children, exists: true}, {not: {any_item: children, where: {birth_date: {newer_than: P12Y}}}}]}
        start 2026-05-01T12:00
        0d                ana  identified children=[{name=Max;birth_date=2023-06-15}|{name=Eva;birth_date=2014-06-01}]
        0d                ana  expect segments toddler_parents
        2026-06-14T23:59  ana  expect segments toddler_parents
        2026-06-15T00:00  ana  expect segments none
        2026-07-01T00:00  ana  identified children=[{name=Max;birth_date=2023-06-15}|{name=Ida;birth_date=2026-06-30}]
        2026-07-01T00:00  ana  expect segments toddler_parents
        2029-06-30T00:00  ana  expect left toddler_parents 2029-06-30T00:00, segments none
        2038-06-29T23:59  ana  expect segments none
        2038-06-30T00:00  ana  expect segments outgrown
        """
    )


@pytest.mark.mechanic("M39")
@pytest.mark.mechanic("M29")
def test_the_pet_that_a_message_is_about_is_in_it() -> None:
    done = check(
        """
        segment dog_owners = {any_item: pets, where: [{species: dog}, {weight: {gte: 20}}]}
        trigger food = {on: {event: order_completed}, when: {in_segment: dog_owners}, steps: [{emit: {template: food, payload: {pets: {any_item: pets, where: [{species: dog}]}}}}]}
        0d  ana  identified pets=[{species=cat;name=Tom}|{species=dog;name=Rex;weight=19}]
        0d  ana  expect out
        1d  ana  identified pets=[{species=cat;name=Tom}|{species=dog;name=Rex;weight=21}|{species=dog;name=Bo;weight=5}]
        1d  ana  expect in
        2d  ana  order_completed order_id=1 total=10
        2d  ana  expect emits food 1
        """
    )
    assert [pet["name"] for pet in done.sent("food")[0]["payload"]["pets"]] == ["Rex", "Bo"]


@pytest.mark.mechanic("M10")
def test_an_age_grows_at_midnight_of_the_birthday_where_the_customer_is() -> None:
    check(
        """
        defaults = {zone: Europe/Berlin}
        trait age = {years_since: birth_date}
        segment adult = {trait: age, gte: 18}
        segment young = {trait: age, between: [18, 34]}
        start 2026-02-01T12:00
        0d                    ana  identified birth_date=2008-02-10 timezone=Asia/Tokyo
        0d                    bob  identified birth_date=2008-02-10
        0d                    leo  identified birth_date=2008-02-29
        2026-02-09T15:59      ana  expect segments none
        2026-02-09T16:00      ana  expect entered adult 2026-02-09T16:00, segments adult, young
        2026-02-09T23:59      bob  expect segments none
        2026-02-10T00:00      bob  expect segments adult, young
        # Born on 29 February: of age on the 28th of a year without it.
        2026-02-27T23:59      leo  expect segments none
        2026-02-28T00:00      leo  expect segments adult, young
        # A corrected date counts from its correction on.
        2026-03-01T00:00      bob  identified birth_date=2009-02-10
        2026-03-01T00:00      bob  expect trait age 17, segments none
        2043-02-10T00:00      ana  expect trait age 35, segments adult
        """
    )
