"""Event log: an event log in memory. The conformance suite runs over it, as over every engine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

from hooktide.event.v1 import event_pb2

from services.eventlog.errors import AnotherLogError, LogUnavailableError, PositionMismatchError
from services.eventlog.filtered_read import ReadPage, ReadQuery
from services.eventlog.protocol import BATCH_BYTES_MAX
from services.eventlog.record import PARTITIONS, Lag, NewEvent, Place, Record, ResumePoint, ShardPosition, partition_of
from services.runtime.event_types import EVERY_TYPE, patterns_of


def new_event(event: event_pb2.CloudEvent, audience: str = "") -> NewEvent:
    """Return an event in the form that a log appends. Neighbouring events often share a partition."""
    return NewEvent(partition_of(event.id[:-1]), event.source, event.id, event.type, audience, b"", event.SerializeToString())


class MemoryEventLog:
    """An `EventLogReader` in memory. It never appends an event twice, since its caller gives each event an id of its own."""

    def __init__(self, pause: Callable[[], Awaitable[None]], expired_before_ms: Callable[[], int] | None = None) -> None:
        """Await `pause` wherever a network would take time. Without `expired_before_ms`, every record is past its retention."""
        self._pause = pause
        self._expired_before_ms = expired_before_ms
        self.records: dict[int, Record] = {}
        """The records that are not trimmed, by their positions, which are the numbers from 1 to `head`."""
        self.head = 0
        self.released: dict[int, int] = dict.fromkeys(range(PARTITIONS), 0)
        self.reachable = True
        self.log_id = "10" * 16
        self.retention_s = 7 * 86400.0
        self._grown = asyncio.Event()

    def append(self, event: NewEvent, *, accepted_ms: int) -> Record:
        """Append an event."""
        self.head += 1
        event_id = f"evt_{accepted_ms:012x}70008{self.head:015x}"
        record = Record(event.partition, self.head, event_id, event.type, event.source, event.audience, accepted_ms, event.event)
        self.records[self.head] = record
        self._wake()
        return record

    def trim(self, before_ms: int | None = None) -> int:
        """Drop every released record that was accepted before a time, if one is given; return how many were dropped."""
        dropped = [
            position
            for position, record in self.records.items()
            if position <= self.released[record.partition] and (before_ms is None or record.accepted_ms < before_ms)
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
    async def follow(self, after: Sequence[Place], *, log_id: str = "", batch_records_max: int = 500) -> AsyncIterator["MemoryFollowing"]:
        """See `EventReader.follow`."""
        await self._pause()
        self.refuse_if_away()
        if log_id not in {"", self.log_id}:
            raise AnotherLogError("the log is another")
        if wrong := [place.partition for place in after if not self._fits(place, begins_anew=not log_id)]:
            raise PositionMismatchError(wrong)
        yield MemoryFollowing(self, {place.partition: place.position for place in after}, batch_records_max)

    def _fits(self, place: Place, *, begins_anew: bool) -> bool:
        went_back = (not begins_anew or bool(place.event_id or place.following_id)) and place.position < self.released[place.partition]
        return not went_back and self._holds(place)

    def _holds(self, place: Place) -> bool:
        """Return whether the log holds the records that a place names. A trimmed record cannot be compared and counts as held."""
        if place.position > self.head or (place.following_id and not self._is(place.partition, place.position + 1, place.following_id)):
            return False
        is_trimmed = place.position not in self.records
        return not place.event_id or is_trimmed or self._is(place.partition, place.position, place.event_id)

    def _is(self, partition: int, position: int, event_id: str) -> bool:
        record = self.records.get(position)
        return record is not None and (record.partition, record.event_id) == (partition, event_id)

    async def read(self, query: ReadQuery) -> ReadPage:
        """See `EventReader.read`."""
        await self._pause()
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
        return ReadPage(found, [ShardPosition(0, scanned)], [ShardPosition(0, trimmed + 1)], self.log_id)

    async def fetch(self, places: Sequence[Place]) -> list[Record]:
        """See `EventReader.fetch`."""
        await self._pause()
        self.refuse_if_away()
        held = [(place, self.records.get(place.position)) for place in places]
        found = [record for place, record in held if record is not None and record.partition == place.partition]
        await self._pause()
        return found

    async def rewind(self, places: Sequence[Place]) -> None:
        """See `ReaderProgress.rewind`."""
        await self._pause()
        self.refuse_if_away()
        for place in places:
            self.released[place.partition] = min(self.released[place.partition], place.position)

    async def resume_points(self, after: Sequence[Place]) -> tuple[str, list[ResumePoint]]:
        """See `EventReader.resume_points`."""
        await self._pause()
        self.refuse_if_away()
        points = []
        for asked in after:
            mine = [record for record in self.records.values() if record.partition == asked.partition]
            before = [record for record in mine if record.event_id <= asked.event_id]
            place = Place(asked.partition, before[-1].position, before[-1].event_id) if before else Place(asked.partition, 0)
            released = max(place.position, self.released[asked.partition])
            unreleased = [record for record in mine if record.position > released]
            points.append(ResumePoint(place, len(mine) - len(before), len(unreleased)))
        return self.log_id, points

    async def release(self, released: Sequence[Place], recorded: Sequence[Place] = ()) -> list[Place]:
        """See `ReaderProgress.release`."""
        await self._pause()
        self.refuse_if_away()
        foreign = {place.partition for place in recorded if not self._holds(place)}
        for place in released:
            if place.partition not in foreign:
                self.released[place.partition] = max(self.released[place.partition], min(place.position, self.head))
        return [Place(place.partition, self._expired_to()) for place in released]

    def _expired_to(self) -> int:
        if self._expired_before_ms is None:
            return self.head
        before_ms = self._expired_before_ms()
        young = (position for position, record in self.records.items() if record.accepted_ms >= before_ms)
        return min(young, default=self.head + 1) - 1

    async def report_routed(self, routed: Sequence[Place]) -> Lag:
        """See `ReaderProgress.report_routed`."""
        await self._pause()
        self.refuse_if_away()
        places = {place.partition: place for place in routed}
        unrouted = [
            record for record in self.records.values() if self._follows(record, places.get(record.partition, Place(record.partition, 0)))
        ]
        oldest = min(unrouted, key=lambda record: record.position, default=None)
        return Lag(0, None) if oldest is None else Lag(self.head - oldest.position + 1, oldest.accepted_ms)

    def _follows(self, record: Record, place: Place) -> bool:
        """Return whether a record follows a place; if the log holds another event there, whether the record has a newer id."""
        if place.event_id and not self._holds(place):
            return record.event_id > place.event_id
        return record.position > place.position

    async def next_batch(self, cursors: dict[int, int], scanned: int, records_max: int) -> Sequence[Record]:
        """Wait for records beyond `scanned` and the cursors."""
        while True:
            self.refuse_if_away()
            grown = self._grown
            after = (self.records.get(position) for position in range(scanned + 1, self.head + 1))
            wanted = (record for record in after if record is not None and record.position > cursors.get(record.partition, self.head))
            if found := _bounded(wanted, records_max):
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

    def __init__(self, log: MemoryEventLog, cursors: dict[int, int], batch_records_max: int) -> None:
        self._log = log
        self._cursors = cursors
        self._batch_records_max = batch_records_max
        self.log_id = log.log_id
        self.retention_s = log.retention_s
        self.heads = {
            partition: max((record.position for record in log.records.values() if record.partition == partition), default=0)
            for partition in cursors
        }

    async def batches(self) -> AsyncIterator[Sequence[Record]]:
        """See `Following.batches`."""
        scanned = 0
        while True:
            records = await self._log.next_batch(self._cursors, scanned, self._batch_records_max)
            scanned = records[-1].position
            yield records
