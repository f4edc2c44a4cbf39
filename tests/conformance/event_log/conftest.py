"""Fixtures: the engines of the event log. Every test of `engine` or `open_engine` runs over all of them.

`sqlite` is the embedded log, `grpc` reads the same log through ingest's gRPC, `relayed` follows it through the relay of delivery's parent
besides, `memory` is the log of the simulation.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from hooktide.ingest.v1 import event_log_pb2_grpc

from services.eventlog.grpc_client import RETRIED, GrpcEventLogReader
from services.eventlog.protocol import EventAppender, EventLog, EventLogReader
from services.eventlog.record import Appended, Conflict, NewEvent
from services.ingest import log_server
from services.runtime.rpc.access import new_service_token
from services.runtime.rpc.channel_and_server import Server, open_channel
from tests.simulation.event_log import MemoryEventLog
from tests.support.clock import MovedClock
from tests.support.event_logs import RETENTION_S, opened
from tests.support.relaying import relaying


class FilledLog(EventAppender, Protocol):
    """The log behind a reader, which a test fills and empties."""

    async def trim(self, *, before_ms: int) -> int:
        """See `EventLogMaintenance.trim`."""
        ...


@dataclass(frozen=True, slots=True)
class Engine:
    """A log and one engine's reader of it."""

    log: FilledLog
    """The log behind the reader, to which tests append."""
    reader: EventLogReader
    clock: MovedClock
    lose: Callable[[], Awaitable[None]]
    """Makes the log unreachable for its readers, as a normal stop does."""
    trims_exactly: bool = True
    """Whether a trim deletes all records from the first one up to the first one that it must keep, as SQLite does, and no other."""

    async def trim(self, *, before_ms: int = 1 << 50, exactly: int) -> None:
        """Delete old records that are released: `exactly` so many in an engine that trims exactly."""
        deleted = await self.log.trim(before_ms=before_ms)
        assert deleted == exactly or not self.trims_exactly


OpenEngine = Callable[[], AbstractAsyncContextManager[Engine]]


@contextlib.asynccontextmanager
async def _sqlite(path: Path) -> AsyncIterator[Engine]:
    async with opened(path) as it:

        async def lose() -> None:
            it.log.end_following()

        yield Engine(it.log, it.log, it.clock, lose)


@contextlib.asynccontextmanager
async def _grpc(path: Path) -> AsyncIterator[Engine]:
    token = new_service_token()
    async with opened(path) as it:
        server = Server(log_server.RULES, token)
        event_log_pb2_grpc.add_EventLogServiceServicer_to_server(log_server.EventLogServer(it.log), server.grpc)
        target = await server.start("127.0.0.1:0")

        async def lose() -> None:
            it.log.end_following()
            await server.stop()

        try:
            async with open_channel(target, retried=RETRIED) as channel:
                yield Engine(it.log, GrpcEventLogReader(channel, token), it.clock, lose)
        finally:
            await lose()


@contextlib.asynccontextmanager
async def _relayed(path: Path) -> AsyncIterator[Engine]:
    async with opened(path) as it, relaying(it.log) as world:
        yield Engine(it.log, world.reader(), it.clock, world.stop_ingest)


class _MemoryAppender:
    """Appends to a log in memory, and finds duplicates and conflicts."""

    def __init__(self, log: MemoryEventLog, clock: MovedClock) -> None:
        self._log = log
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[bytes, Appended]] = {}

    @property
    def why_refusing(self) -> str | None:
        return None

    async def append(self, events: Sequence[NewEvent]) -> list[Appended | Conflict]:
        return [self._append(event) for event in events]

    def _append(self, event: NewEvent) -> Appended | Conflict:
        if (known := self._known.get((event.source, event.id))) is not None:
            digest, first = known
            return first._replace(duplicate=True) if digest == event.digest else Conflict(first.event_id)
        record = self._log.append(event, accepted_ms=int(self._clock.time_s * 1000))
        appended = Appended(record.event_id, record.partition, record.position, duplicate=False)
        self._known[event.source, event.id] = event.digest, appended
        return appended

    async def trim(self, *, before_ms: int) -> int:
        return self._log.trim(before_ms)


def _memory(_path: Path) -> Callable[[], AbstractAsyncContextManager[Engine]]:
    clock = MovedClock()
    log = MemoryEventLog(lambda: asyncio.sleep(0), lambda: int((clock.time_s - RETENTION_S) * 1000))
    log.retention_s = RETENTION_S
    appender = _MemoryAppender(log, clock)

    @contextlib.asynccontextmanager
    async def opening() -> AsyncIterator[Engine]:
        async def lose() -> None:
            log.set_reachable(reachable=False)

        log.set_reachable(reachable=True)
        yield Engine(appender, log, clock, lose, trims_exactly=False)

    return opening


_OPENINGS: dict[str, Callable[[Path], OpenEngine]] = {
    "sqlite": lambda path: lambda: _sqlite(path),
    "grpc": lambda path: lambda: _grpc(path),
    "relayed": lambda path: lambda: _relayed(path),
    "memory": _memory,
}


@pytest.fixture(params=_OPENINGS)
def open_engine(request: pytest.FixtureRequest, tmp_path: Path) -> OpenEngine:
    """Returns a function that opens this test's log, for the first time or again."""
    return _OPENINGS[request.param](tmp_path / "ingest.db")


@pytest.fixture
async def engine(open_engine: OpenEngine) -> AsyncIterator[Engine]:
    """A new log."""
    async with open_engine() as opened_engine:
        yield opened_engine


@dataclass(frozen=True, slots=True)
class OwnedLog:
    """A log as ingest owns it, and its clock."""

    log: EventLog
    clock: MovedClock


@contextlib.asynccontextmanager
async def _owned_sqlite(path: Path) -> AsyncIterator[OwnedLog]:
    async with opened(path) as it:
        yield OwnedLog(it.log, it.clock)


@pytest.fixture(params=[_owned_sqlite], ids=["sqlite"])
async def owned(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OwnedLog]:
    """A new log of each engine that ingest can own."""
    async with request.param(tmp_path / "ingest.db") as owned_log:
        yield owned_log
