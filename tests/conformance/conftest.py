"""Fixtures: the engines of the event log; every test of one engine runs over all of them."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hooktide.ingest.v1 import event_log_pb2_grpc

from services.eventlog.grpc_client import RETRIED, GrpcEventLogReader
from services.eventlog.protocol import EventLog, EventLogReader
from services.ingest import log_server
from services.runtime.rpc.access import new_service_token
from services.runtime.rpc.channel_and_server import Server, open_channel
from tests.eventlog.logs import opened
from tests.subscription.client import MovedClock


@dataclass(frozen=True, slots=True)
class Engine:
    """A log and one engine's reader of it."""

    log: EventLog
    """The log behind the reader, to which tests append."""
    reader: EventLogReader
    clock: MovedClock
    lose: Callable[[], Awaitable[None]]
    """Makes the log unreachable for its readers, as a normal stop does."""


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


@pytest.fixture(params=[_sqlite, _grpc], ids=["sqlite", "grpc"])
def open_engine(request: pytest.FixtureRequest, tmp_path: Path) -> OpenEngine:
    """Returns a function that opens this test's log, for the first time or again."""
    opening: Callable[[Path], AbstractAsyncContextManager[Engine]] = request.param
    return lambda: opening(tmp_path / "ingest.db")


@pytest.fixture
async def engine(open_engine: OpenEngine) -> AsyncIterator[Engine]:
    """A new log."""
    async with open_engine() as opened_engine:
        yield opened_engine
