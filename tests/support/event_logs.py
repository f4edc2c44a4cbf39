"""Event logs: events to append, and logs to append them to."""

import asyncio
import contextlib
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from services.eventlog.protocol import EventAppender, Following
from services.eventlog.record import Appended, Conflict, NewEvent, Record, ShardPosition, SlotProgress, partition_of
from services.eventlog.sqlite.log import SqliteEventLog, open_sqlite_log
from tests.support.clock import MovedClock

TIMEOUT_S = 60
RETENTION_S = 3600.0
LARGE = 1 << 40


def new_event(number: int, *, partition: int | None = None, content: str = "", size_bytes: int = 20) -> NewEvent:
    """Return an event with the id `number`; another `content` makes a different event with the same id."""
    payload = f"{number}:{content}".encode().ljust(size_bytes, b".")
    digest = hashlib.sha256(payload).digest()
    return NewEvent(
        partition_of(str(number)) if partition is None else partition, "/shop", str(number), "order.created", "", digest, payload
    )


def new_events(numbers: range, *, partition: int | None = None, size_bytes: int = 20) -> list[NewEvent]:
    """Return an event for each number."""
    return [new_event(number, partition=partition, size_bytes=size_bytes) for number in numbers]


def everything(position: int = 0) -> list[ShardPosition]:
    """Return a place: a position in each shard."""
    return [ShardPosition(0, position)]


def released(through: int, recorded: ShardPosition | None = None, slots: Sequence[int] = ()) -> list[SlotProgress]:
    """Return the report that slots need nothing up to a position; by default everything is recorded up to there, by an unknown event."""
    return [SlotProgress(slots, [recorded or ShardPosition(0, through)], [ShardPosition(0, through)])]


async def appended(log: EventAppender, events: Sequence[NewEvent]) -> list[Appended]:
    """Append events and fail if one of them is refused."""
    async with asyncio.timeout(TIMEOUT_S):
        results = await log.append(events)
    assert len(results) == len(events)
    return [accepted(result) for result in results]


def accepted(result: Appended | Conflict) -> Appended:
    """Return a result and fail if it is a conflict."""
    assert isinstance(result, Appended)
    return result


@dataclasses.dataclass
class Reading:
    """Reads one following, as many records at a time as a test wants."""

    following: Following
    batch_sizes: list[int] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self._batches = self.following.batches()

    async def batch(self) -> Sequence[Record]:
        """Return the next batch."""
        async with asyncio.timeout(TIMEOUT_S):
            records = await anext(self._batches)
        self.batch_sizes.append(len(records))
        return records

    async def take(self, count: int) -> list[Record]:
        """Return exactly the next `count` records: the last batch may hold no further record."""
        records: list[Record] = []
        while len(records) < count:
            records += await self.batch()
        assert len(records) == count
        return records


@dataclasses.dataclass
class OpenLog:
    """An open SQLite log with its clock and its failures."""

    log: SqliteEventLog
    clock: MovedClock
    failures: list[BaseException]
    failed: asyncio.Event


@contextlib.asynccontextmanager
async def opened(path: Path, clock: MovedClock | None = None, *, bytes_max: int = LARGE) -> AsyncIterator[OpenLog]:
    """Open a SQLite log in a file."""
    clock = clock or MovedClock()
    failures: list[BaseException] = []
    failed = asyncio.Event()

    def note(error: BaseException) -> None:
        failures.append(error)
        failed.set()

    async with open_sqlite_log(path, clock, bytes_max=bytes_max, retention_s=RETENTION_S, failed=note) as log:
        yield OpenLog(log, clock, failures, failed)
