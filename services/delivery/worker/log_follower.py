"""Log follower: reads the log from the ledger's cursor and routes every event.

event log → read_ahead → read_barrier → [log_follower: router] → lane → dispatcher → …
"""

import asyncio
import bisect
import contextlib
import operator
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from prometheus_client import Counter

from services.delivery.dispatch.dispatcher import Dispatcher
from services.delivery.dispatch.key_order import KeyOrder
from services.delivery.dispatch.lane import Lane
from services.delivery.dispatch.owed_ranges import is_behind
from services.delivery.ledger.protocol import GroupCursor, Ledger, ShardCursor, Takeover
from services.delivery.model import Chunk, Delivery, Event, delivery_id
from services.delivery.request.order_key import order_key
from services.delivery.request.request_settings import Subscription
from services.delivery.subscriptions.read_barrier import ReadBarrier
from services.delivery.subscriptions.replica import Replica
from services.delivery.worker.lane_modes import LaneModes
from services.delivery.worker.poison import Poison
from services.delivery.worker.read_ahead import read_ahead
from services.delivery.worker.stopped_group import ANOTHER_LOG, OLDER_COPY, StoppedGroup
from services.delivery.worker.unflushed_deliveries import UnflushedDeliveries
from services.eventlog.errors import AnotherLogError, EventLogError, LogUnavailableError, PositionMismatchError
from services.eventlog.protocol import EventLogReader, Following
from services.eventlog.record import Record, ShardPosition, SlotProgress
from services.runtime import failpoints
from services.runtime.clock import Clock
from services.runtime.logs import logger

_CHUNK_DELIVERIES = 200
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 2.0
# Ingest may be away this long, enough for a restart, before readiness reports it.
_AWAY_S = 3.0
_id_of = operator.attrgetter("id")

_routed_events = Counter("hooktide_routed_events_total", "Events routed.")


@dataclass(slots=True)
class RoutingProgress:
    """How far one shard is routed."""

    shard: int
    position: int
    event_id: str
    through: str
    """The id of the last subscription to which the event at the position is routed; empty if it is routed to all of them."""

    @property
    def place(self) -> ShardPosition:
        """The last wholly routed event. The log compares its id, or that of the next event if this one is routed in part."""
        if self.through:
            return ShardPosition(self.shard, self.position - 1, following_id=self.event_id)
        return ShardPosition(self.shard, self.position, self.event_id)


def progress_at(cursor: ShardCursor) -> RoutingProgress:
    """Return the progress of a shard that is routed as far as it is recorded."""
    return RoutingProgress(*cursor)


class LogFollower:
    """Routes the cursor group of one worker."""

    def __init__(  # noqa: PLR0913, PLR0917 - one parameter for each collaborator
        self,
        log: EventLogReader,
        ledger: Ledger,
        replica: Replica,
        barrier: ReadBarrier,
        dispatcher: Dispatcher,
        unflushed: UnflushedDeliveries,
        lane_modes: LaneModes,
        clock: Clock,
        takeover: Takeover,
        *,
        poison: Poison,
        recorded: Callable[[], Awaitable[None]],
        begins: Callable[[float], None],
    ) -> None:
        """`recorded` waits until everything that is routed is recorded.

        `begins` is called at each beginning of a following, with the log's retention in seconds, before anything is read.
        """
        self._log = log
        self._poison = poison
        self._recorded = recorded
        self._begins = begins
        self._ledger = ledger
        self._replica = replica
        self._barrier = barrier
        self._dispatcher = dispatcher
        self._unflushed = unflushed
        self._lane_modes = lane_modes
        self._clock = clock
        self._routed = lane_modes.recorded_through
        self._is_routing = False
        self._floors = lane_modes.floors
        self._progress = {each.shard: progress_at(each) for each in takeover.groups[0].shards}
        self.log_id = takeover.log_id
        """The identity of the log that the ledger follows; empty for a new ledger."""
        self.stopped = StoppedGroup()
        """Whether the log is not followed, because the place in it does not fit."""
        # The last position of each shard when this worker took it over. Events up to there may have been sent before a crash.
        # They are recorded before they are sent again, so that a crash loop sends each of them at most once a start.
        self._record_first_through: dict[int, int] | None = None
        self._unrouted_since_ms: int | None = None
        self._away_since: float | None = clock.monotonic()
        self._following: asyncio.Timeout | None = None

    async def run(self) -> None:
        """Follow for ever; after the stream is lost, resume where routing stands."""
        while True:
            try:
                async with asyncio.timeout(None) as following:
                    self._following = following
                    await self._follow()
            except TimeoutError:
                if not following.expired():
                    raise

    def resume(self, group: GroupCursor, log_id: str) -> None:
        """Follow the log again, after it was stopped, from this cursor, in the log with the identity `log_id`."""
        self.log_id, self._away_since = log_id, self._clock.monotonic()
        self.stopped.resume()
        self._progress = {each.shard: progress_at(each) for each in group.shards}
        self._routed, self._is_routing = self._lane_modes.recorded_through, False
        # The events that follow may have been sent before: record them first.
        self._record_first_through = None
        if self._following is not None:
            self._following.reschedule(asyncio.get_running_loop().time())

    async def _follow(self) -> None:
        """Follow the log until its place does not fit; then wait to be restarted."""
        backoff_s = _BACKOFF_FIRST_S
        while not self.stopped:
            self._lane_modes.follows_log = False
            try:
                async with self._log.follow(self.routed_place(), slots=self._floors.main_slots, log_id=self.log_id) as following:
                    await self._check_identity(following)
                    await self._check_floors(following)
                    self._begins(following.retention_s)
                    self._away_since = None
                    heads = {shard: max(head, self._poison.careful_through) for shard, head in following.heads.items()}
                    self._record_first_through = heads | (self._record_first_through or {})
                    self._lane_modes.follows_log = True
                    self._lane_modes.record_first_through = max(self._record_first_through.values())
                    failpoints.reached("delivery.resumed")
                    async with contextlib.aclosing(read_ahead(following.batches())) as batches:
                        async for records in batches:
                            backoff_s = _BACKOFF_FIRST_S
                            await self._route_batch(records)
            except AnotherLogError:
                self.stopped.stop(ANOTHER_LOG)
                continue
            except PositionMismatchError:
                self.stopped.stop(OLDER_COPY)
                continue
            except LogUnavailableError:
                backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
            except EventLogError as error:
                logger().error("event_log.read_failed", reason=str(error))
                backoff_s = _BACKOFF_MAX_S
            self._away_since = self._clock.monotonic() if self._away_since is None else self._away_since
            logger().warning("event_log.disconnected", retry_s=backoff_s)
            await asyncio.sleep(backoff_s * (0.5 + random.random()))  # noqa: S311 - jitter
        self._lane_modes.follows_log = False
        await asyncio.Event().wait()  # until `resume`; the reason is logged

    @property
    def is_reading(self) -> bool:
        """Whether the log is read."""
        return self._away_since is None and not self.stopped

    def why_not_reading(self) -> str | None:
        """Return in a sentence why events are not read; None if they are read, or were interrupted for less than `_AWAY_S`."""
        if self._away_since is not None and not self.stopped and self._clock.monotonic() - self._away_since > _AWAY_S:
            return "the event log cannot be read: the ingest service is unavailable, and new events wait there"
        return self.stopped.why()

    @property
    def progress(self) -> list[RoutingProgress]:
        """How far each shard is routed."""
        return list(self._progress.values())

    def routed_place(self) -> list[ShardPosition]:
        """Return the place of the last wholly routed events, where reading goes on."""
        return [each.place for each in self._progress.values()]

    def routed(self) -> int | None:
        """Return the position up to which everything is routed; None in the middle of an event."""
        return None if self._is_routing or any(each.through for each in self._progress.values()) else self._routed

    def unrouted_age_s(self) -> float:
        """Return the age of the oldest event that was read and is not routed, in seconds; 0 if there is no such event."""
        return 0.0 if self._unrouted_since_ms is None else max(0.0, self._clock.now() - self._unrouted_since_ms / 1000)

    async def _check_identity(self, following: Following) -> None:
        """Store the identity of the log at first; raise `AnotherLogError` if it is not the log that the ledger has followed."""
        if not self.log_id:
            # A new ledger needs the events again that an earlier ledger has released.
            place = self.routed_place()
            await self._log.rewind([SlotProgress(self._floors.slots, place, place)])
            await self._ledger.set_log_id(following.log_id)
            self.log_id = following.log_id
        elif self.log_id != following.log_id:
            raise AnotherLogError("the log is not the log that the ledger has followed")

    async def _check_floors(self, following: Following) -> None:
        """Raise `PositionMismatchError` if the log does not have the events at the slot floors."""
        places = {floor.place.position: floor.place for floor in self._floors}
        found = await self._log.fetch(list(places.values())) if places else []
        for record in found:
            if places[record.position].event_id not in {"", record.event_id}:
                raise PositionMismatchError([record.shard])
        for place in places.values():
            if place.position > following.heads[place.shard]:
                raise PositionMismatchError([place.shard])

    async def _route_batch(self, records: Sequence[Record]) -> None:
        self._unrouted_since_ms = records[0].accepted_ms
        await self._barrier.passed()
        while self._replica.system_paused:
            await self._replica.unpaused()
            # The pause may have been long, so ask again; meanwhile another pause may have begun.
            await self._barrier.passed()
        self._is_routing = True
        passed_by, many = self._dispatcher.backlog.passed_by, self._lane_modes.many
        for record in records:
            if (self._lane_modes.is_due or len(passed_by) >= many) and not self._progress[record.shard].through:
                self._lane_modes.step(self._routed)
            if record.position <= self._poison.asked_through and await self._poison.is_routed_with_care(record):
                await self._route_with_care(record)
            else:
                await self._route(record)
            self._routed = record.position
        self._is_routing = False
        _routed_events.inc(len(records))
        self._unrouted_since_ms = None
        self._dispatcher.pump()

    async def _route_with_care(self, record: Record) -> None:
        """Route an event, or pass it by if it is set aside; return once it is recorded."""
        if record.event_id in self._poison.set_aside:
            progress = self._progress[record.shard]
            progress.position, progress.event_id, progress.through = record.position, record.event_id, ""
            chunk = Chunk(record.shard, record.position, record.event_id, "", [], self._clock.monotonic(), record_first=True)
            self._unflushed.add_chunk(chunk)
        else:
            await self._route(record)
        self._dispatcher.pump()
        await self._recorded()

    async def _route(self, record: Record) -> None:
        """Route one event to all its subscriptions, in chunks, so that a large fan-out stays within bounds."""
        progress = self._progress[record.shard]
        if record.position < progress.position:
            return
        begun = record.position == progress.position
        if begun and record.event_id != progress.event_id:
            raise PositionMismatchError([record.shard])
        if begun and not progress.through:
            return
        event, through = Event(record), progress.through if begun else ""
        while True:
            if self._unflushed.is_full:
                self._dispatcher.pump()
                await self._unflushed.wait_for_room()
            if not self._barrier.holds():
                await self._barrier.passed()
            # Match after all waits: a subscription may go during a wait, and a delivery routed to it afterwards would never be cancelled.
            matches = self._replica.router.match(record.type, record.source, record.audience)
            if self._floors.of_slot:
                matches = self._floors.above(matches, record.position)
            start = bisect.bisect_right(matches, through, key=_id_of)
            part = matches[start : start + _CHUNK_DELIVERIES]
            through = part[-1].id if start + _CHUNK_DELIVERIES < len(matches) else ""
            self._take(record, event, part, through)
            progress.position, progress.event_id, progress.through = record.position, record.event_id, through
            if not through:
                return
            self._dispatcher.pump()
            # A fan-out to thousands must not keep everything else from running.
            await asyncio.sleep(0)

    def _take(self, record: Record, event: Event, part: Sequence[Subscription], through: str) -> None:
        dispatcher, lanes = self._dispatcher, self._dispatcher.lanes
        shard, partition, position, event_id, type_, _, _, accepted_ms, _ = record
        record_first = position <= (self._record_first_through or {}).get(shard, 0)
        chunk = Chunk(shard, position, event_id, through, [], self._clock.monotonic(), record_first)
        key = b""
        for subscription in part:
            lane = lanes.lane(subscription.id)
            if lane.ranges and (is_behind(lane.ranges) or position <= (lane.ranges[-1].until or 0)):
                dispatcher.backlog.pass_by(lane, chunk, position)
                continue
            has_room = lanes.has_room(lane, subscription)
            if (order := lane.order) is not None:
                key = key or order_key(record.event, event_id)
                has_room = has_room and lanes.has_room_for_key(lane, order)
            if not has_room and not lanes.takes_row(lane, subscription):
                dispatcher.backlog.go_behind(lane)
                dispatcher.backlog.pass_by(lane, chunk, position)
                continue
            # Positional arguments: keywords would double the time, and this runs for every delivery.
            delivery = Delivery(
                delivery_id(event_id, subscription.id),
                event_id,
                shard,
                partition,
                position,
                type_,
                accepted_ms,
                subscription.id,
                subscription.consumer_id,
                subscription.revision,
                event if has_room else None,
                subscription.settings.content_mode,
                chunk,
            )
            chunk.deliveries.append(delivery)
            if order is not None:
                delivery.order_key = key
                self._take_ordered(lane, order, delivery, chunk, has_room=has_room)
                continue
            if not has_room:
                dispatcher.backlog.spill(lane, delivery)
                continue
            chunk.unsettled += 1
            if record_first:
                lanes.hold(delivery)
            else:
                dispatcher.add(delivery, lane)
        self._unflushed.add_chunk(chunk)

    def _take_ordered(self, lane: Lane, order: KeyOrder, delivery: Delivery, chunk: Chunk, *, has_room: bool) -> None:
        """Take a delivery of an ordered lane; behind a row of its key, it waits as a row too."""
        for_key = has_room and order.has_row_before(delivery.order_key, delivery.position)
        if for_key or not has_room:
            self._dispatcher.backlog.spill(lane, delivery, for_key=for_key)
            return
        chunk.unsettled += 1
        if chunk.record_first:
            self._dispatcher.lanes.hold(delivery)
            order.add(delivery)
        else:
            self._dispatcher.ordered.add(lane, order, delivery)
