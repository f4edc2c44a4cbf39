"""Event log: an event log in memory, and events for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from hooktide.event.v1 import event_pb2

from services.eventlog.errors import AnotherLogError, LogUnavailableError, PositionMismatchError
from services.eventlog.record import PARTITIONS, Lag, Place, Record, ResumePoint, partition_of


def cloud_event(own_id: str, event_type: str, source: str = "/shop") -> event_pb2.CloudEvent:
    """Return a small event."""
    return event_pb2.CloudEvent(id=own_id, source=source, spec_version="1.0", type=event_type, text_data=f'{{"id": "{own_id}"}}')


class LogOfTests:
    """An `EventLogReader` to which a test appends."""

    def __init__(self, pause: Callable[[], Awaitable[None]]) -> None:
        """Await `pause` wherever a network would take time."""
        self._pause = pause
        self.records: dict[int, Record] = {}
        self.head = 0
        self.trimmed_to = 0
        self.released: dict[int, int] = dict.fromkeys(range(PARTITIONS), 0)
        self.reachable = True
        self.log_id = "log"
        self._grown = asyncio.Event()

    def append(self, event: event_pb2.CloudEvent, *, accepted_ms: int, audience: str = "") -> Record:
        """Append an event."""
        self.head += 1
        event_id = f"evt_{accepted_ms:012x}70008{self.head:015x}"
        # Neighbouring events often share a partition.
        partition = partition_of(event.id[:-1])
        record = Record(partition, self.head, event_id, event.type, event.source, audience, accepted_ms, event.SerializeToString())
        self.records[self.head] = record
        self._wake()
        return record

    def trim(self) -> None:
        """Drop every released record."""
        for position, record in list(self.records.items()):
            if position <= self.released[record.partition]:
                del self.records[position]
        self.trimmed_to = min(self.records, default=self.head + 1) - 1

    def set_reachable(self, *, reachable: bool) -> None:
        """Become unreachable, or reachable again."""
        self.reachable = reachable
        self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    @contextlib.asynccontextmanager
    async def follow(self, after: Sequence[Place], *, log_id: str = "", batch_records_max: int = 500) -> AsyncIterator["FollowingOfTests"]:
        """See `EventLogReader.follow`."""
        await self._pause()
        self.refuse_if_away()
        if log_id not in {"", self.log_id}:
            raise AnotherLogError("the log is another")
        if wrong := [place.partition for place in after if not self._fits(place, begins_anew=not log_id)]:
            raise PositionMismatchError(wrong)
        yield FollowingOfTests(self, {place.partition: place.position for place in after}, batch_records_max)

    def _fits(self, place: Place, *, begins_anew: bool) -> bool:
        went_back = (not begins_anew or bool(place.event_id or place.following_id)) and place.position < self.released[place.partition]
        return not went_back and self._holds(place)

    def _holds(self, place: Place) -> bool:
        if place.following_id:
            following = self.records.get(place.position + 1)
            return following is not None and following.event_id == place.following_id
        known = self.records.get(place.position)
        return place.position <= self.head and (not place.event_id or known is None or known.event_id == place.event_id)

    async def fetch(self, places: Sequence[Place]) -> list[Record]:
        """See `EventLogReader.fetch`."""
        await self._pause()
        self.refuse_if_away()
        found = [self.records[place.position] for place in places if place.position in self.records]
        await self._pause()
        return found

    async def rewind(self, places: Sequence[Place]) -> None:
        """See `EventLogReader.rewind`."""
        await self._pause()
        self.refuse_if_away()
        for place in places:
            self.released[place.partition] = min(self.released[place.partition], place.position)

    async def resume_points(self, after: Sequence[Place]) -> tuple[str, list[ResumePoint]]:
        """See `EventLogReader.resume_points`."""
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
        """See `EventLogReader.release`; every record may be released."""
        await self._pause()
        self.refuse_if_away()
        foreign = {place.partition for place in recorded if not self._holds(place)}
        for place in released:
            if place.partition in foreign:
                continue
            self.released[place.partition] = max(self.released[place.partition], place.position)
        return [Place(place.partition, self.head) for place in released]

    async def report_routed(self, routed: Sequence[Place]) -> Lag:
        """See `EventLogReader.report_routed`."""
        await self._pause()
        self.refuse_if_away()
        positions = {place.partition: place.position for place in routed}
        unrouted = [record for record in self.records.values() if record.position > positions[record.partition]]
        oldest = min(unrouted, key=lambda record: record.position, default=None)
        return Lag(0, None) if oldest is None else Lag(self.head - oldest.position + 1, oldest.accepted_ms)

    async def next_batch(self, cursors: dict[int, int], scanned: int, records_max: int) -> Sequence[Record]:
        """Wait for records beyond `scanned` and the cursors."""
        while True:
            self.refuse_if_away()
            grown = self._grown
            found = [
                record for position, record in self.records.items() if position > max(scanned, cursors.get(record.partition, self.head))
            ]
            if found:
                await self._pause()
                self.refuse_if_away()
                return found[:records_max]
            await grown.wait()

    def refuse_if_away(self) -> None:
        """Raise if the log is unreachable."""
        if not self.reachable:
            raise LogUnavailableError("the log is away")


class FollowingOfTests:
    """See `Following`."""

    def __init__(self, log: LogOfTests, cursors: dict[int, int], batch_records_max: int) -> None:
        self._log = log
        self._cursors = cursors
        self._batch_records_max = batch_records_max
        self.log_id = log.log_id
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
