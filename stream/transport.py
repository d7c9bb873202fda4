"""Faust's consumer, delivering whole fetches and starting at our cursor.

Faust carries partitions, rebalances and agents. What it does with single records and their offsets is replaced:

- one message a (topic, partition) and fetch, holding all its records, so the framework costs a few microseconds
  a record instead of a hundred (PERFORMANCE);
- every partition starts where ``engine.claim`` says, whatever Kafka has committed (R6), and Kafka is told only what
  the engine reported through ``Log.commit``; Faust's own acknowledgements move nothing;
- the same partition of all topics goes to the same worker (``Copartition``; the round-robin that Faust gives an app
  without tables does so only when the workers divide the partitions);
- the engine is told within a fetch's time that a topic was read to its end;
- any exception reaches ``on_fault``, because aiokafka logs what a rebalance listener raises and goes on (R8).

The consumer lives in the app's own loop, not in a thread as Faust's does: positions, buffers and rebalances are
seen between two awaits, never halfway. It stands on inner doors of faust-streaming 0.15.3 and aiokafka 0.14.0;
``tests/contracts/test_faust_pin.py`` names each of them.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, cast

import aiokafka
import aiokafka.abc
import msgpack
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport import base
from faust.transport.conductor import Conductor
from faust.transport.consumer import Consumer, RecordMap
from faust.transport.drivers.aiokafka import Producer
from faust.types import TP, AppT, ConsumerMessage, Message

from profiles.errors import Refused
from stream import metrics
from stream.feed import Chunk, Feed, Gap, Place
from stream.ports import LogRecord
from stream.settings import Own

log = logging.getLogger(__name__)

IDLE_AFTER_S: Final = 1.0
"""Without records for so long, brokers may hold a fetch for ``fetch_idle_wait_ms``."""

Commits = Callable[[], Mapping[Place, int]]
"""What the engine has reported since the last call, and nobody has told Kafka yet."""


def security(own: Own) -> dict[str, Any]:
    """How to speak to the brokers, as arguments of aiokafka's clients."""
    given: dict[str, Any] = {"security_protocol": own.kafka_security}
    if own.kafka_security.endswith("SSL"):
        given["ssl_context"] = ssl.create_default_context(cafile=own.kafka_ca_file or None)
    if own.kafka_security.startswith("SASL"):
        given |= {
            "sasl_mechanism": own.kafka_mechanism,
            "sasl_plain_username": own.kafka_user,
            "sasl_plain_password": own.kafka_password,
        }
    return given


# --- who gets which partitions ------------------------------------------------------------------------------------


def share_out(partitions: int, owned: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Share partitions out evenly; everybody keeps what he has, as far as that is fair.

    Args:
        partitions: how many there are, numbered from 0.
        owned: member -> what it says it has; two may claim the same after a lost session, the first by name keeps it.
    Returns:
        member -> partitions, ascending; the counts differ by one at most. Same arguments, same result.
    """
    members = sorted(owned)
    kept: dict[str, list[int]] = {}
    taken: set[int] = set()
    for member in members:
        kept[member] = sorted({p for p in owned[member] if 0 <= p < partitions} - taken)
        taken.update(kept[member])
    least, over = divmod(partitions, len(members))
    # Those with the most get the larger shares, so that the fewest move.
    for rank, member in enumerate(sorted(members, key=lambda name: (-len(kept[name]), name))):
        del kept[member][least + (rank < over) :]
    free = sorted(set(range(partitions)) - {p for ours in kept.values() for p in ours})
    for partition in free:
        poorest = min(members, key=lambda name: (len(kept[name]), name))
        kept[poorest].append(partition)
    return {member: sorted(ours) for member, ours in kept.items()}


class Copartition(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka publishes no types
    """Gives the same partition of every topic to the same member, and lets members keep what they have."""

    name = "opportune-copartition"

    def __init__(self) -> None:
        self._owned: list[int] = []

    def assign(
        self, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Run by the group's leader for all members."""
        topics = sorted({topic for metadata in members.values() for topic in metadata.subscription})
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        shares = share_out(
            max(counts.values(), default=0),
            {member: _unpack_owned(metadata.user_data) for member, metadata in members.items()},
        )
        return {
            member: ConsumerProtocolMemberAssignment(
                0,
                [
                    (topic, [partition for partition in shares[member] if partition < counts[topic]])
                    for topic in sorted(metadata.subscription)
                ],
                b"",
            )
            for member, metadata in members.items()
        }

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this member says when it joins: its topics, and what it has."""
        return ConsumerProtocolMemberMetadata(0, sorted(topics), msgpack.packb(self._owned))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what we got."""
        self._owned = sorted({partition for _, partitions in assignment.assignment for partition in partitions})


def _unpack_owned(user_data: bytes) -> list[int]:
    try:
        owned = msgpack.unpackb(user_data)
    except (ValueError, TypeError, msgpack.UnpackException):
        return []
    return [partition for partition in owned if type(partition) is int] if isinstance(owned, list) else []


class _Listener(aiokafka.abc.ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka publishes no types
    """Passes rebalances on to the consumer, as Faust's own listener does from its thread."""

    def __init__(self, consumer: FetchConsumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._consumer.app.on_rebalance_start()
        await self._consumer.on_partitions_revoked({TP(*tp) for tp in revoked})

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        generation = self._consumer.kafka._coordinator.generation
        self._consumer.app.consumer_generation_id = generation
        await self._consumer.on_partitions_assigned({TP(*tp) for tp in assigned}, generation)


# --- the consumer -------------------------------------------------------------------------------------------------


class FetchConsumer(Consumer):
    """Reads whole fetches for one ``Feed``, on aiokafka, in the app's own loop."""

    transport: FetchTransport
    logger = logging.getLogger("faust.transport")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.feed: Feed = self.transport.feed
        self._own: Own = self.transport.own
        self._kafka: Any = None
        self._news = asyncio.Event()
        self._answered: dict[Place, int] = {}  # when the last fetch of a place was answered
        self._untold: set[Place] = set()  # answered, and the engine not told where the end is
        self._stamp_ms = 0
        self._read_at_s = 0.0  # when records came last, by the loop's clock
        self._generation = -1
        self._owning: asyncio.Task[None] | None = None
        self._commits: dict[Place, int] = {}
        self._committed: dict[Place, int] = {}

    @property
    def kafka(self) -> Any:
        """The ``AIOKafkaConsumer``."""
        assert self._kafka is not None, "the consumer was used before it was started"
        return self._kafka

    # --- life

    async def on_start(self) -> None:
        """Connect; the group is joined when Faust subscribes."""
        own = self._own
        self._kafka = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=own.bootstrap,
            client_id=own.group,
            group_id=own.group,
            partition_assignment_strategy=[Copartition()],
            enable_auto_commit=False,
            # Until we have sought, and if our offset is out of the log's range, aiokafka goes to the earliest record.
            # It never is silently taken for ours: `Feed.admit` and `check_end` compare with the wanted offset.
            auto_offset_reset="earliest",
            fetch_max_wait_ms=own.fetch_wait_ms,
            max_partition_fetch_bytes=own.fetch_bytes,
            request_timeout_ms=own.request_ms,
            session_timeout_ms=own.session_ms,
            heartbeat_interval_ms=own.heartbeat_ms,
            rebalance_timeout_ms=own.rebalance_ms,
            isolation_level="read_uncommitted",
            check_crcs=True,
            **security(own),
        )
        await self._kafka.start()
        self._watch_fetches(self._kafka._fetcher)

    async def on_stop(self) -> None:
        """Let go of everything, tell Kafka how far we are, leave the group."""
        if self._kafka is None:
            return
        if not self.transport.faulted():
            # After a fault nothing more is written or committed: the process ends and its successor begins at the cursor.
            await self.feed.release(self.feed.owned)
            await self.commit()
        self._generation = -1
        if self._owning is not None:
            self._owning.cancel()
        await self._kafka.stop()

    def _watch_fetches(self, fetcher: Any) -> None:
        """Learn of every answered fetch at once, also of an empty one, and keep records small on their way.

        aiokafka notes when it answered a partition in ``state.timestamp``; it is cleared before a request, so that
        it is set afterwards only if this very request was answered for this partition, without error.
        """
        proceed = fetcher._proc_fetch_request

        async def watched(assignment: Any, node_id: Any, request: Any) -> Any:
            states = [
                ((topic, partition), assignment.state_value(TopicPartition(topic, partition)))
                for topic, asked in request.topics
                for partition, _, _ in asked
            ]
            for _, state in states:
                state.timestamp = None
            found = await proceed(assignment, node_id, request)
            if assignment.active:
                answered_ms = self._stamp()
                records = fetcher._records
                for place, state in states:
                    if state.timestamp is not None:
                        self._answered[place] = answered_ms
                        self._untold.add(place)
                        if found and place in records:
                            _light(records[place])
                self._news.set()
            return found

        fetcher._proc_fetch_request = watched
        # A node is not asked while records of one of its partitions are unread and younger than this. Long enough to
        # take them first, short enough that a partition whose engine waits does not hold up the others.
        fetcher._prefetch_backoff = self._own.fetch_wait_ms / 1000

    def _stamp(self) -> int:
        """The wall clock, but every answer gets a greater one, also when the clock is set back."""
        self._stamp_ms = max(self._stamp_ms + 1, self.transport.wall_ms())
        return self._stamp_ms

    # --- rebalances

    def awaits_share(self) -> bool:
        """Whether the group has a coordinator, and it has not told us yet which partitions are ours, or takes them back."""
        coordinator = self._kafka._coordinator if self._kafka is not None else None  # None until it has connected.
        return coordinator is not None and coordinator.coordinator_id is not None and self._generation < 0

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stop handing over, let Faust empty its queues, release; only then the group may give them to others."""
        self._generation = -1
        partitions = sorted({tp.partition for tp in revoked})

        async def revoke() -> None:
            await super(FetchConsumer, self).on_partitions_revoked(revoked)
            if not self.transport.faulted():
                await self.feed.release(partitions)
                await self.commit()
            self._committed.clear()

        await self._guard("a rebalance, revoking", revoke())

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Begin to claim what we got. The claim is a task: heartbeats start only when this returns."""

        if self.should_stop:
            return  # We were joining when we were told to stop, and are leaving again: our successor claims them.

        async def assign() -> None:
            self._check_assigned(assigned)
            self._generation = generation_id
            self._owning = asyncio.get_running_loop().create_task(
                self._guard("claiming partitions", self._own_them(assigned, generation_id))
            )
            await super(FetchConsumer, self).on_partitions_assigned(assigned, generation_id)

        await self._guard("a rebalance, assigning", assign())

    def _check_assigned(self, assigned: set[TP]) -> None:
        topics = self.transport.topics
        for topic in topics:
            count = len(self.kafka.partitions_for_topic(topic) or ())
            if count != self.transport.partitions:
                raise Refused(f"topic {topic}: {self.transport.partitions} partitions wanted, got {count} (R10)")
        for partition in sorted({tp.partition for tp in assigned}):
            ours = [topic for topic in topics if TP(topic, partition) in assigned]
            if len(ours) != len(topics):
                raise Refused(f"partition {partition}: all of {', '.join(topics)} wanted, got {', '.join(ours)} only")

    async def _own_them(self, assigned: set[TP], generation: int) -> None:
        """Claim, look at where the topics begin, seek, and let reading begin."""
        starts = await self.feed.claim(sorted({tp.partition for tp in assigned}))
        kept = self.feed.places()
        starts |= {
            (tp.topic, tp.partition): kept[tp.topic, tp.partition]
            for tp in assigned
            if (tp.topic, tp.partition) in kept
        }
        if not starts:
            return
        places = [TopicPartition(*place) for place in starts]
        # Where a topic ends the fetches tell: the embedded broker gives a wrong answer to the direct question.
        begins = await self._begins(places, generation)
        if generation != self._generation:
            return  # Another rebalance came; it released, or will release, what we claimed.
        for place, begin in begins.items():
            wanted = starts[place.topic, place.partition]
            if begin > wanted:
                self.transport.on_gap(Gap(place.topic, place.partition, wanted, begin))
                starts[place.topic, place.partition] = begin
        for place in places:
            self.kafka.seek(place, starts[place.topic, place.partition])
        self.feed.begin({place: start for place, start in starts.items() if place not in kept})
        self._news.set()

    async def _begins(self, places: list[TopicPartition], generation: int) -> dict[TopicPartition, int]:
        """The first offset of each place; asks until a broker answers or the group moves on (R27)."""
        while generation == self._generation:
            try:
                return cast(dict[TopicPartition, int], await self.kafka.beginning_offsets(places))
            except KafkaError as error:
                log.warning("the brokers do not say where topics begin, asking again: %s", type(error).__name__)
                await asyncio.sleep(self._own.heartbeat_ms / 1000)
        return {}

    async def perform_seek(self) -> None:
        """Faust calls this before it lets records flow: wait until what we own was claimed and sought."""
        if self._owning is not None:
            await asyncio.shield(self._owning)

    async def _guard(self, where: str, work: Awaitable[None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.transport.on_fault(where, error)

    # --- reading

    async def _drain_messages(self, fetcher: Any) -> None:
        """The reading loop; Faust's ``Fetcher`` service runs it."""
        try:
            await self._guard("reading", self._read(fetcher))
        except asyncio.CancelledError:
            if not (self.transport.faulted() or self.app.should_stop):
                raise
            # We are being stopped: in the middle of a rebalance, Faust would take the cancellation for a crash.

    async def _read(self, fetcher_service: Any) -> None:
        kafka, subscription, feed = self.kafka, self.kafka._subscription, self.feed
        fetcher = kafka._fetcher
        loop = asyncio.get_running_loop()
        while not (self.should_stop or fetcher_service.should_stop):
            if not self.flow_active:
                await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # asyncio's Event serves, too
                continue
            kafka._coordinator.check_errors()
            if fetcher.error_future.done():
                await fetcher.error_future
                raise AssertionError("aiokafka's fetcher ended")
            drained: dict[TopicPartition, list[LogRecord]] = {}
            ready = set(feed.ready())
            with subscription.fetch_context():
                # `fetched_records` would wait for a rebalance to end, and takes an empty set for "all".
                if ready and not subscription.reassignment_in_progress:
                    drained = await fetcher.fetched_records(ready, 0, max_records=self._own.poll_records)
            if drained:
                self._read_at_s = loop.time()
                fetcher._fetch_max_wait_ms = self._own.fetch_wait_ms
            elif loop.time() - self._read_at_s > IDLE_AFTER_S:
                fetcher._fetch_max_wait_ms = self._own.fetch_idle_wait_ms
            chunks = self._admit(drained)
            for chunk in chunks:
                await self._pass_on(chunk)
            self._tell_ends(subscription, fetcher._records)
            if drained:
                await asyncio.sleep(0)  # The agents' turn.
            else:
                await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        """Until a fetch was answered or a place has room; at most for a heartbeat, to look after errors."""
        try:
            async with asyncio.timeout(self._own.heartbeat_ms / 1000):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    def _admit(self, drained: Mapping[TopicPartition, list[LogRecord]]) -> list[Chunk]:
        chunks = []
        for place, records in drained.items():
            read_ms = self._answered.get(place) or self._stamp()
            chunk, back = self.feed.admit(place.topic, place.partition, records, read_ms)
            if back is not None:
                log.warning(
                    "%s/%d: a hole before offset %d, reading again", place.topic, place.partition, records[-1].offset
                )
                self.kafka.seek(place, back)
            if chunk is not None:
                chunks.append(chunk)
        return chunks

    async def _pass_on(self, chunk: Chunk) -> None:
        """Through Faust: conductor, topic, stream, agent; the agent gives it to ``feed.hand``."""
        tp = TP(chunk.topic, chunk.partition)
        message = ConsumerMessage(
            chunk.topic,
            chunk.partition,
            chunk.records[-1].offset,
            chunk.read_ms / 1000,
            0,
            None,
            None,
            cast(Any, chunk),
            None,
            0,
            0,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )
        await self.wait_first(self.callback(message), self.suspend_flow.wait())

    def _tell_ends(self, subscription: Any, unread: Mapping[Any, Any]) -> None:
        """Tell the engine of every topic that was read to its end; those with a chunk under way wait."""
        if not self._untold:
            return
        current = subscription.subscription.assignment if subscription.subscription is not None else None
        told = []
        for place in self._untold:
            state = current.state_value(TopicPartition(*place)) if current is not None else None
            if state is None or state.highwater is None or not state.has_valid_position:
                told.append(place)
                continue
            if place in unread:
                continue
            topic, partition = place
            self.feed.check_end(topic, partition, state.highwater, state.position, self._answered[place])
            if state.position != state.highwater or self.feed.at_end(
                topic, partition, state.position, self._answered[place]
            ):
                told.append(place)
        self._untold.difference_update(told)

    def on_room(self, place: Place) -> None:
        """The engine has taken a chunk of this place."""
        self._news.set()

    # --- offsets: Faust's bookkeeping is out of the way

    def track_message(self, message: Message) -> None:
        """Nothing to wait for: what is under way is the feed's business."""

    def ack(self, message: Message) -> bool:
        """An acknowledgement moves nothing; the cursor does."""
        message.acked = True
        return True

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Tell Kafka what the engine has stored. It is information only, so a failure is logged and left at that.

        aiokafka asks again for ever, also when it is being closed, which waits for this (``test_faust_pin``): no longer
        than a session, after which the group has given the partitions away.
        """
        self._commits.update(self.transport.commits())
        self._count_lag()
        ours = self.kafka.assignment()
        offsets = {
            TopicPartition(*place): OffsetAndMetadata(offset, "")
            for place, offset in self._commits.items()
            if offset > self._committed.get(place, -1) and TopicPartition(*place) in ours
        }
        self._commits.clear()
        if not offsets:
            return False
        try:
            async with asyncio.timeout(self._own.session_ms / 1000):
                await self.kafka.commit(offsets)
        except (KafkaError, TimeoutError) as error:
            log.warning("the brokers did not take our offsets: %s", type(error).__name__)
            return False
        self._committed.update({(place.topic, place.partition): at.offset for place, at in offsets.items()})
        return True

    def _count_lag(self) -> None:
        """Compare the ends that the fetches told with how far the engine is."""
        lag = dict.fromkeys(self.transport.topics, 0)
        for place, wanted in self.feed.places().items():
            end = self.kafka.highwater(TopicPartition(*place))
            if end is not None:
                lag[place[0]] += max(0, end - self._committed.get(place, wanted))
        for topic, records in lag.items():
            metrics.LAG_RECORDS.labels(topic).set(records)

    # --- what Faust's Consumer wants of a driver

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group for these topics."""
        self.kafka.subscribe(topics=sorted(topics), listener=_Listener(self))

    def assignment(self) -> set[TP]:
        """What the group has given us."""
        return {TP(*tp) for tp in self.kafka.assignment()}

    def highwater(self, tp: TP) -> int:
        """The end of a topic and partition as last heard."""
        return cast(int, self.kafka.highwater(TopicPartition(*tp)))

    async def position(self, tp: TP) -> int | None:
        """The next offset that will be read."""
        return self.feed.places().get((tp.topic, tp.partition))

    def topic_partitions(self, topic: str) -> int | None:
        """How many partitions a topic has."""
        known = self.kafka.partitions_for_topic(topic)
        return len(known) if known else None

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Where topics begin."""
        return {TP(*tp): at for tp, at in (await self.kafka.beginning_offsets(partitions)).items()}

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Where topics end."""
        return {TP(*tp): at for tp, at in (await self.kafka.end_offsets(partitions)).items()}

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """Only Faust's producer asks, which is not started."""
        self._not_ours("key_partition")

    async def create_topic(self, topic: str, *args: Any, **kwargs: Any) -> None:
        """Topics are made by an operation of their own, never on the way."""
        self._not_ours("create_topic")

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Never: the cursor is the truth (R6)."""
        self._not_ours("seek_to_committed")

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Only Faust's tables seek, and there are none."""
        self._not_ours("seek_wait")

    async def _seek(self, partition: TP, offset: int) -> None:
        self._not_ours("seek")

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        self._not_ours("_commit")

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> RecordMap:
        self._not_ours("_getmany")

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        self._not_ours("_to_message")

    def _not_ours(self, what: str) -> NoReturn:
        raise AssertionError(f"{what}: Faust was not expected to call this; see stream/transport.py")


def _light(found: Any) -> None:
    """Let a fetch result make ``LogRecord`` straight away, without aiokafka's record of eleven fields in between."""
    unread = getattr(found, "_partition_records", None)
    if unread is None:
        return  # An error, to be raised when it is read.
    topic, partition = unread._tp

    def light(_: Any, record: Any) -> LogRecord:
        value = record.value
        return LogRecord(topic, partition, record.offset, record.key, value if value is not None else b"")

    unread._consumer_record = light


class FetchTransport(base.Transport):
    """Makes Faust use ``FetchConsumer``."""

    Consumer = FetchConsumer
    Producer = Producer  # Never started; its idle buffer is what Faust's conductor looks at.
    Conductor = Conductor
    driver_version = f"opportune on aiokafka={aiokafka.__version__}"
    default_port = 9092

    def __init__(
        self,
        url: Any,
        app: AppT,
        *,
        feed: Feed,
        own: Own,
        topics: Sequence[str],
        partitions: int,
        commits: Commits,
        wall_ms: Callable[[], int],
        on_gap: Callable[[Gap], None],
        on_fault: Callable[[str, BaseException], None],
        faulted: Callable[[], bool],
    ) -> None:
        """Make a transport for one app and its feed; the callables are described at ``Worker``."""
        super().__init__(url, app)
        self.feed = feed
        self.own = own
        self.topics = tuple(topics)
        self.partitions = partitions
        self.commits = commits
        self.wall_ms = wall_ms
        self.on_gap = on_gap
        self.on_fault = on_fault
        self.faulted = faulted
