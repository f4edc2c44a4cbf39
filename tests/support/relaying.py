"""Relaying: a log behind ingest's gRPC server, and the relay of delivery's parent in front of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
from hooktide.ingest.v1 import event_log_pb2_grpc

from services.delivery.parent import log_relay
from services.delivery.parent.log_relay import LogRelay
from services.delivery.parent.shared_batches import BYTES_MAX
from services.eventlog.grpc_client import RETRIED, GrpcEventLogReader
from services.eventlog.sqlite.log import SqliteEventLog
from services.ingest import log_server
from services.runtime.background import in_background
from services.runtime.rpc.access import new_service_token
from services.runtime.rpc.channel_and_server import Server, open_channel


@dataclass
class Relaying:
    """Ingest's server, the relay, and readers of both."""

    log: SqliteEventLog
    ingest: Server
    relay: LogRelay
    token: str
    to_ingest: grpc.aio.Channel
    to_relay: grpc.aio.Channel

    def reader(self) -> GrpcEventLogReader:
        """Return a reader that follows the log through the relay."""
        return GrpcEventLogReader(self.to_ingest, self.token, self.to_relay)

    async def stop_ingest(self) -> None:
        """Stop ingest, as a normal stop does."""
        self.log.end_following()
        await self.ingest.stop()


@contextlib.asynccontextmanager
async def relaying(log: SqliteEventLog, *, bytes_max: int = BYTES_MAX) -> AsyncIterator[Relaying]:
    """Serve a log and relay it; the relay keeps at most `bytes_max` bytes of shared batches."""
    token = new_service_token()
    ingest, front = Server(log_server.RULES, token), Server(log_relay.RULES, token)
    event_log_pb2_grpc.add_EventLogServiceServicer_to_server(log_server.EventLogServer(log), ingest.grpc)
    async with open_channel(await ingest.start("127.0.0.1:0"), retried=RETRIED) as to_ingest:
        relay = LogRelay(to_ingest, token, bytes_max=bytes_max)
        front.grpc.add_generic_rpc_handlers((relay.handler(),))
        async with in_background(relay.run()), open_channel(await front.start("127.0.0.1:0")) as to_relay:
            world = Relaying(log, ingest, relay, token, to_ingest, to_relay)
            try:
                yield world
            finally:
                await asyncio.gather(front.stop(0), world.stop_ingest())
