"""What machines do with letters is no reaction of a person, unless a rule asks for it."""

from __future__ import annotations

import pytest

from rules.scenarios import check

ANY = "where: [{machine: {exists: true}}]"


@pytest.mark.mechanic("M37")
@pytest.mark.mechanic("M40")
@pytest.mark.parametrize("machine", ["true", "prefetch", "scanner"])
def test_a_rule_about_openings_means_those_of_people(machine: str) -> None:
    check(
        f"""
        segment opened      = {{did: email_opened}}
        segment not_opened  = {{did_not: email_opened}}
        segment by_people   = {{did: email_opened, where: [{{machine: {{ne: true}}}}]}}
        segment by_machines = {{did: email_opened, where: [{{machine: true}}]}}
        segment by_anybody  = {{did: email_opened, where: [{{machine: {{exists: true}}}}]}}
        segment from_spring = {{did: email_opened, where: [{{campaign: spring}}]}}
        segment in_a_row    = {{sequence: [{{did: email_opened}}, {{then: {{did: order}}, within: P1D}}]}}
        1d  ana  email_opened machine={machine} campaign=spring
        1d  ana  expect out opened, in not_opened, out by_people, in by_machines, in by_anybody, out from_spring
        36h ana  order_completed order_id=1 total=10
        36h ana  expect out in_a_row
        2d  ana  email_opened campaign=spring
        2d  ana  expect in opened, out not_opened, in by_people, in from_spring
        60h ana  order_completed order_id=2 total=10
        60h ana  expect in in_a_row
        """
    )


@pytest.mark.mechanic("M37")
def test_a_machines_click_begins_no_journey_cancels_none_and_is_not_waited_for() -> None:
    check(
        """
        goal reads = {event: email_link_clicked}
        segment reached = {reached_goal: reads}
        trigger asked    = {class: transactional, on: {event: email_link_clicked}, steps: [{emit: t}]}
        trigger awaited  = {class: transactional, on: {event: registered}, steps: [{wait_for: {event: email_link_clicked, timeout: P2D, on_event: exit}}, {emit: t}]}
        trigger broken   = {class: transactional, on: {event: registered}, cancel_on: [{event: [email_opened, email_link_clicked]}], steps: [{wait: P2D}, {emit: t}]}
        trigger scanned  = {class: transactional, on: {event: email_link_clicked, where: [{machine: true}]}, steps: [{emit: t}]}
        0d  ana  registered
        0d  bob  registered
        1d  ana  email_link_clicked machine=scanner
        1d  bob  email_link_clicked
        1d  ana  expect emits asked 0, emits scanned 1, out reached
        1d  bob  expect emits asked 1, emits scanned 0, in reached
        3d  ana  expect emits awaited 1, emits broken 1
        3d  bob  expect emits awaited 0, emits broken 0, suppressed broken cancelled 1
        """
    )


@pytest.mark.mechanic("M40")
def test_a_machines_click_is_no_visit_and_brings_nobody() -> None:
    check(
        """
        segment here = {session: {did: email_link_clicked}}
        segment from_letters = {trait: last_touch.source, eq: letter}
        1d  ana  email_link_clicked machine=scanner campaign.source=letter
        1d  bob  email_link_clicked campaign.source=letter
        1d  ana  expect out here, out from_letters
        1d  bob  expect in here, in from_letters
        """
    )
