"""What we know of the installed Faust and aiokafka: why they are kept from our offsets, and which inner doors we use.

When one of these fails after an upgrade: a flaw that is gone may be leant on no sooner than we want it; a door whose
text changed must be read again next to ``stream/transport.py`` before its digest is written anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import inspect
import textwrap
from collections import defaultdict
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka.consumer import fetcher as fetcher_module
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from faust.exceptions import ValueDecodeError
from faust.transport.conductor import ConductorCompiler
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from intervaltree import IntervalTree  # type: ignore[import-untyped]  # publishes no types
from mode.supervisors import OneForOneSupervisor

from profiles.wire import INPUT_TOPICS
from stream.transport import Copartition

PLACE = TP("topic", 0)


def test_the_versions_are_those_that_were_read() -> None:
    assert (version("faust-streaming"), version("aiokafka")) == ("0.15.3", "0.14.0")


# --- why Faust's bookkeeping moves nothing here


def offsets_after(committed: int | None, acked: list[int]) -> Any:
    """Faust's own books for one partition: up to where committed, and what was acknowledged since."""
    books: Any = SimpleNamespace(
        _acked=defaultdict(list, {PLACE: list(acked)}),
        _acked_index=defaultdict(set, {PLACE: set(acked)}),
        _gap=defaultdict(IntervalTree),
        _committed_offset=defaultdict(lambda: None, {PLACE: committed}),
    )
    return books


def test_faust_commits_past_a_single_record_that_was_not_processed() -> None:
    # The next offset is 101; 101 is still being processed, 102 is done.
    assert Consumer._new_offset(offsets_after(101, [102]), PLACE) == 103


def test_faust_commits_past_several_unprocessed_records_in_a_new_group() -> None:
    # Nothing was committed yet; 0 to 4 are being processed, 5 is done.
    assert Consumer._new_offset(offsets_after(None, [5]), PLACE) == 6


async def test_faust_commits_past_the_first_record_after_a_gap() -> None:
    # 100 was read, 101 to 104 do not exist, 105 is being processed, 106 is done.
    books = offsets_after(100, [106])
    await Consumer._add_gap(books, PLACE, 101, 105)
    assert Consumer._new_offset(books, PLACE) == 107


async def test_faust_acknowledges_an_undecodable_record_before_anybody_has_handled_it() -> None:
    order: list[str] = []

    class Channel:
        key_type = value_type = None

        async def decode(self, message: Any, *, propagate: bool) -> Any:
            raise ValueDecodeError("undecodable")

        async def on_value_decode_error(self, error: Exception, message: Any) -> None:
            order.append("handled")

    async def nothing() -> None:
        pass

    app = SimpleNamespace(
        consumer=SimpleNamespace(on_buffer_full=None, on_buffer_drop=None),
        flow_control=SimpleNamespace(acquire=nothing),
        producer=SimpleNamespace(buffer=SimpleNamespace(wait_until_ebb=nothing)),
        sensors=SimpleNamespace(on_topic_buffer_full=None),
    )
    message: Any = SimpleNamespace(
        incref=lambda n: None, refcount=1, ack=lambda consumer, n: order.append("acknowledged")
    )
    conductor: Any = SimpleNamespace(app=app)
    channels: Any = {Channel()}
    on_message: Any = ConductorCompiler().build(conductor, PLACE, channels)
    await on_message(message)
    assert order == ["acknowledged", "handled"]


def test_fausts_default_supervisor_goes_on_after_a_failed_event() -> None:
    app = faust.App("pin", broker="kafka://127.0.0.1:1", autodiscover=False)
    chosen: Any = app.conf.agent_supervisor
    assert chosen is OneForOneSupervisor
    assert "restart_service(service)" in inspect.getsource(OneForOneSupervisor.restart_services)


async def test_aiokafka_goes_on_after_a_rebalance_listener_has_raised(caplog: pytest.LogCaptureFixture) -> None:
    def broken(revoked: object) -> None:
        raise RuntimeError("broken")

    coordinator: Any = object.__new__(GroupCoordinator)
    coordinator.group_id = "group"
    coordinator._group_subscription = None
    coordinator._subscription = SimpleNamespace(
        begin_reassignment=lambda: None, listener=SimpleNamespace(on_partitions_revoked=broken)
    )
    await coordinator._on_join_prepare(None)
    assert "failed on_partitions_revoked" in caplog.text


# --- why partitions are shared out by an assignor of our own


def shares(assignor: Any, members: int) -> list[dict[str, list[int]]]:
    cluster = SimpleNamespace(partitions_for_topic=lambda topic: set(range(8)))
    metadata = {f"m{n}": assignor.metadata(set(INPUT_TOPICS)) for n in range(members)}
    return [
        {topic: sorted(partitions) for topic, partitions in assigned.assignment}
        for assigned in assignor.assign(cluster, metadata).values()
    ]


def test_without_tables_faust_deals_partitions_out_in_turn_and_tears_them_apart() -> None:
    assert "else RoundRobinPartitionAssignor" in inspect.getsource(driver.AIOKafkaConsumerThread)
    assert all(len({tuple(p) for p in member.values()}) == 1 for member in shares(RoundRobinPartitionAssignor, 2))
    assert any(len({tuple(p) for p in member.values()}) > 1 for member in shares(RoundRobinPartitionAssignor, 3))


@pytest.mark.parametrize("members", range(1, 11))
def test_our_assignor_gives_the_same_partition_of_every_topic_to_one_member(members: int) -> None:
    dealt = shares(Copartition(), members)
    assert all(member.keys() == set(INPUT_TOPICS) for member in dealt)
    assert all(len({tuple(partitions) for partitions in member.values()}) == 1 for member in dealt)
    assert sorted(p for member in dealt for p in member[INPUT_TOPICS[0]]) == list(range(8))


# --- the inner doors

DOORS = {
    "aiokafka.consumer.fetcher:FetchResult": "da332176786f",
    "aiokafka.consumer.fetcher:Fetcher._fetch_requests_routine": "154a2c7b7c22",
    "aiokafka.consumer.fetcher:Fetcher._get_actions_per_node": "b5dfda0c46e2",
    "aiokafka.consumer.fetcher:Fetcher._proc_fetch_request": "ed32ebe4beae",
    "aiokafka.consumer.fetcher:Fetcher.fetched_records": "682c38545099",
    "aiokafka.consumer.fetcher:PartitionRecords._consumer_record": "e8fbcd6345ab",
    "aiokafka.consumer.fetcher:PartitionRecords._unpack_records": "dcd0856d7a71",
    "aiokafka.consumer.group_coordinator:GroupCoordinator._on_join_complete": "92dfd38a0057",
    "aiokafka.consumer.group_coordinator:GroupCoordinator._on_join_prepare": "429d63ed61a4",
    "aiokafka.consumer.group_coordinator:GroupCoordinator.check_errors": "27b94275e712",
    "aiokafka.consumer.subscription_state:TopicPartitionState": "1f45e8404ed7",
    "aiokafka.producer.message_accumulator:BatchBuilder": "ba74d530c6e9",
    "aiokafka.producer.message_accumulator:MessageAccumulator.add_batch": "b80b4477952a",
    "aiokafka.producer.sender:Sender._sender_routine": "9b1e619b6045",
    "faust.app.base:App._on_partitions_assigned": "72495c4a9a38",
    "faust.app.base:App._on_partitions_revoked": "05c6f8c5ce71",
    "faust.app.base:App._stop_consumer": "4c01aeb16ae3",
    "faust.app.base:BootStrategy": "60e6bcab0e33",
    "faust.tables.recovery:Recovery._resume_streams": "fca9643353b1",
    "faust.transport.conductor:Conductor": "6dcfea78a18c",
    "faust.transport.consumer:Consumer": "6564456652bd",
    "faust.transport.consumer:Fetcher": "a6ef60fb14ed",
    "mode.services:Service.crash": "bae1eae8202b",
}
"""What we override, call or count on, beside what is public: dotted name -> digest of its text."""


def digest_of(door: str) -> str:
    module, _, names = door.partition(":")
    found: Any = importlib.import_module(module)
    for name in names.split("."):
        found = inspect.getattr_static(found, name)
    text = textwrap.dedent(inspect.getsource(found))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@pytest.mark.parametrize("door", DOORS)
def test_an_inner_door_is_as_it_was_when_it_was_read(door: str) -> None:
    assert digest_of(door) == DOORS[door], f"{door} has changed: read it next to stream/transport.py"


async def test_aiokafkas_reader_takes_an_empty_set_of_partitions_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """So ``FetchConsumer`` must not ask it for none."""
    monkeypatch.setattr(fetcher_module, "FetchResult", SimpleNamespace)
    fetcher: Any = object.__new__(fetcher_module.Fetcher)
    fetcher._subscriptions = SimpleNamespace(reassignment_in_progress=False)
    fetcher._wait_consume_future = asyncio.get_running_loop().create_future()
    fetcher._records = {PLACE: SimpleNamespace(getall=lambda most: ["record"], has_more=lambda: False)}
    assert await fetcher.fetched_records(set(), 0) == {PLACE: ["record"]}
