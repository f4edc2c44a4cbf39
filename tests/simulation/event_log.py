"""Event log: an event log in memory. The conformance suite runs over it, as over every engine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

from hooktide.event.v1 import event_pb2

from services.eventlog.errors import AnotherLogError, LogUnavailableError, PositionMismatchError
from services.eventlog.filtered_read import ReadPage, ReadQuery
from services.eventlog.protocol import BATCH_BYTES_MAX
from services.eventlog.record import Lag, NewEvent, Record, ResumePoint, ShardPosition, SlotProgress, partition_of
from services.runtime.event_types import EVERY_TYPE, patterns_of
from services.runtime.ids import SLOTS

SHARD = 0


def new_event(event: event_pb2.CloudEvent, audience: str = "") -> NewEvent:
    """Return an event in the form that a log appends. Neighbouring events often share a partition."""
    return NewEvent(partition_of(event.id[:-1]), event.source, event.id, event.type, audience, b"", event.SerializeToString())


_POSITION_SHIFT = 10


def time_in(event_id: str) -> int:
    """Return the time in an event's id, in ms since 1970: that of its acceptance, or of an earlier event if that is later."""
    return int(event_id[4:16], 16)


def position_in(event_id: str) -> int:
    """Return the position of an event that a `MemoryEventLog` has appended."""
    return int(event_id[-15:], 16) >> _POSITION_SHIFT


class MemoryEventLog:
    """An `EventLogReader` in memory. It never appends an event twice, since its caller gives each event an id of its own."""

    def __init__(self, pause: Callable[[], Awaitable[None]], expired_before_ms: Callable[[], int] | None = None) -> None:
        """Await `pause` wherever a network would take time. Without `expired_before_ms`, every record is past its retention."""
        self._pause = pause
        self._expired_before_ms = expired_before_ms
        self.records: dict[int, Record] = {}
        """The records that are not trimmed, by their positions, which are the numbers from 1 to `head`."""
        self.head = 0
        self.recorded = dict.fromkeys(range(SLOTS), 0)
        """For each slot, the position up to which its reader has recorded everything."""
        self.released = dict.fromkeys(range(SLOTS), 0)
        """For each slot, the position up to which its reader needs no record any more."""
        self._routed: dict[int, ShardPosition] = {}
        self._newest_ms = 0
        self.reachable = True
        self.page_s = 0.0
        """How many seconds a filtered page takes, besides the network."""
        self.batch_s = 0.0
        """How many seconds the next five records take to arrive; 0: batches take only the network's time."""
        self.log_id = "10" * 16
        self.retention_s = 7 * 86400.0
        self._grown = asyncio.Event()

    @property
    def lowest_released(self) -> int:
        """The position up to which no reader needs a record any more."""
        return min(self.released.values())

    def append(self, event: NewEvent, *, accepted_ms: int) -> Record:
        """Append an event."""
        self.head += 1
        # As in every engine: ids grow, also while the wall clock is behind.
        self._newest_ms = max(self._newest_ms, accepted_ms)
        event_id = f"evt_{self._newest_ms:012x}70008{self.head << _POSITION_SHIFT | event.partition:015x}"
        record = Record(SHARD, event.partition, self.head, event_id, event.type, event.source, event.audience, accepted_ms, event.event)
        self.records[self.head] = record
        self._wake()
        return record

    def trim(self, before_ms: int | None = None) -> int:
        """Drop every released record that was accepted before a time, if one is given; return how many were dropped."""
        dropped = [
            position
            for position, record in self.records.items()
            if position <= self.lowest_released and (before_ms is None or record.accepted_ms < before_ms)
        ]
        for position in dropped:
            del self.records[position]
        return len(dropped)

    def set_reachable(self, *, reachable: bool) -> None:
        """Become unreachable, or reachable again."""
        self.reachable = reachable
        self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    @contextlib.asynccontextmanager
    async def follow(
        self, after: Sequence[ShardPosition], *, slots: Sequence[int] = (), log_id: str = "", batch_records_max: int = 500
    ) -> AsyncIterator["MemoryFollowing"]:
        """See `EventReader.follow`."""
        await self._pause()
        self.refuse_if_away()
        if log_id not in {"", self.log_id}:
            raise AnotherLogError("the log is another")
        [place] = after
        if not self._fits(place, slots, begins_anew=not log_id):
            raise PositionMismatchError([SHARD])
        yield MemoryFollowing(self, place.position, batch_records_max)

    def _fits(self, place: ShardPosition, slots: Sequence[int], *, begins_anew: bool) -> bool:
        may_go_back = begins_anew and not (place.event_id or place.following_id)
        released = max(self.released[slot] for slot in slots or range(SLOTS))
        return (may_go_back or place.position >= released) and self._holds(place)

    def _holds(self, place: ShardPosition) -> bool:
        """Return whether the log holds the records that a position names. A trimmed record cannot be compared and counts as held."""
        if place.position > self.head or (place.following_id and not self._is(place.position + 1, place.following_id)):
            return False
        is_trimmed = place.position not in self.records
        return not place.event_id or is_trimmed or self._is(place.position, place.event_id)

    def _is(self, position: int, event_id: str) -> bool:
        record = self.records.get(position)
        return record is not None and record.event_id == event_id

    async def read(self, query: ReadQuery) -> ReadPage:
        """See `EventReader.read`."""
        await self._pause()
        await asyncio.sleep(self.page_s)
        self.refuse_if_away()
        after = query.after[0].position
        end = max(after, min(query.through[0].position if query.through else self.head, self.head, after + query.examined_max))
        trimmed = min(self.records, default=self.head + 1) - 1
        found, scanned, size = list[Record](), end, 0
        for position in range(max(after, trimmed) + 1, end + 1):
            record = self.records.get(position)
            if record is None or not _is_wanted(record, query):
                continue
            size += len(record.event)
            if found and (size > query.bytes_max or len(found) == query.records_max):
                scanned = found[-1].position
                break
            found.append(record)
        await self._pause()
        return ReadPage(found, [ShardPosition(SHARD, scanned)], [ShardPosition(SHARD, trimmed + 1)], self.log_id)

    async def fetch(self, places: Sequence[ShardPosition]) -> list[Record]:
        """See `EventReader.fetch`."""
        await self._pause()
        self.refuse_if_away()
        found = [self.records[place.position] for place in places if place.shard == SHARD and place.position in self.records]
        await self._pause()
        return found

    async def rewind(self, rewound: Sequence[SlotProgress]) -> None:
        """See `ReaderProgress.rewind`."""
        await self._pause()
        self.refuse_if_away()
        for slots, recorded, released in rewound:
            for slot in slots or range(SLOTS):
                self.recorded[slot] = min(self.recorded[slot], recorded[0].position)
                self.released[slot] = min(self.released[slot], released[0].position)

    async def resume_points(self, after: Sequence[ShardPosition], slots: Sequence[int] = ()) -> tuple[str, list[ResumePoint]]:
        """See `EventReader.resume_points`."""
        await self._pause()
        self.refuse_if_away()
        [asked] = after
        before = [record for record in self.records.values() if record.event_id <= asked.event_id]
        place = ShardPosition(SHARD, before[-1].position, before[-1].event_id) if before else ShardPosition(SHARD, 0)
        released = max(place.position, min(self.released[slot] for slot in slots or range(SLOTS)))
        unreleased = [position for position in self.records if position > released]
        return self.log_id, [ResumePoint(place, len(self.records) - len(before), len(unreleased))]

    async def release(self, progress: Sequence[SlotProgress]) -> list[ShardPosition]:
        """See `ReaderProgress.release`."""
        await self._pause()
        self.refuse_if_away()
        for slots, [recorded], [released] in progress:
            for slot in slots or range(SLOTS):
                if self._holds(recorded) and recorded.position >= self.recorded[slot]:
                    self.recorded[slot] = recorded.position
                    self.released[slot] = max(self.released[slot], min(released.position, recorded.position))
        return [ShardPosition(SHARD, self._expired_to())]

    def _expired_to(self) -> int:
        if self._expired_before_ms is None:
            return self.head
        before_ms = self._expired_before_ms()
        young = (position for position, record in self.records.items() if record.accepted_ms >= before_ms)
        return min(young, default=self.head + 1) - 1

    async def report_routed(self, routed: Sequence[ShardPosition], slots: Sequence[int] = ()) -> Lag:
        """See `ReaderProgress.report_routed`."""
        await self._pause()
        self.refuse_if_away()
        self._routed |= dict.fromkeys(slots or range(SLOTS), routed[0])
        places = set(self._routed.values())
        if len(self._routed) < SLOTS:
            places.add(ShardPosition(SHARD, self.lowest_released))
        unrouted = [record for record in self.records.values() if any(self._follows(record, place) for place in places)]
        oldest = min(unrouted, key=lambda record: record.position, default=None)
        return Lag(0, None) if oldest is None else Lag(self.head - oldest.position + 1, oldest.accepted_ms)

    def _follows(self, record: Record, place: ShardPosition) -> bool:
        """Return whether a record follows a position; if the log holds another event there, whether the record has a newer id."""
        if place.event_id and not self._holds(place):
            return record.event_id > place.event_id
        return record.position > place.position

    async def next_batch(self, scanned: int, records_max: int) -> Sequence[Record]:
        """Wait for records beyond `scanned`."""
        if self.batch_s:
            await asyncio.sleep(self.batch_s)
            records_max = 5
        while True:
            self.refuse_if_away()
            grown = self._grown
            after = (self.records.get(position) for position in range(scanned + 1, self.head + 1))
            if found := _bounded((record for record in after if record is not None), records_max):
                await self._pause()
                self.refuse_if_away()
                return found
            await grown.wait()

    def refuse_if_away(self) -> None:
        """Raise if the log is unreachable."""
        if not self.reachable:
            raise LogUnavailableError("the log is away")


def _bounded(records: Iterator[Record], records_max: int) -> list[Record]:
    found, size_bytes = list[Record](), 0
    for record in records:
        found.append(record)
        size_bytes += len(record.event)
        if len(found) == records_max or size_bytes >= BATCH_BYTES_MAX:
            break
    return found


def _is_wanted(record: Record, query: ReadQuery) -> bool:
    patterns = query.types or (EVERY_TYPE,)
    return (
        any(pattern in patterns for pattern in patterns_of(record.type))
        and query.source in {"", record.source}
        and (not query.audiences or record.audience in query.audiences)
    )


class MemoryFollowing:
    """See `Following`."""

    def __init__(self, log: MemoryEventLog, start: int, batch_records_max: int) -> None:
        self._log = log
        self._start = start
        self._batch_records_max = batch_records_max
        self.log_id = log.log_id
        self.retention_s = log.retention_s
        self.heads = {SHARD: log.head}

    async def batches(self) -> AsyncIterator[Sequence[Record]]:
        """See `Following.batches`."""
        scanned = self._start
        while True:
            records = await self._log.next_batch(scanned, self._batch_records_max)
            scanned = records[-1].position
            yield records
