"""Relay peer: the log before a relay, or the workers behind it, as a process of its own.

python -m tests.bench.relay_peer log WORKERS RECORDS: prints its address; once all workers follow, it sends the records
on the shared stream.
python -m tests.bench.relay_peer workers WORKERS RECORDS TARGET: prints a line when all have begun, and one when all have all records.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import uvloop
from hooktide.ingest.v1 import event_log_pb2 as pb
from hooktide.ingest.v1 import event_log_pb2_grpc

from services.delivery.parent import log_relay
from services.runtime.rpc.channel_and_server import Server, open_channel, service_metadata

TOKEN = "hts_a-token-for-this-bench-only"
_BATCH = 100


def filled(after: int, count: int) -> pb.FollowLogResponse:
    """Return a message with records of 1 KB."""
    response = pb.FollowLogResponse()
    for position in range(after + 1, after + count + 1):
        event_id = f"evt_{position:032x}"
        response.records.add(
            position=position, partition=position % 256, event_id=event_id, type="order.created", source="/shop/eu", event=os.urandom(1000)
        )
    return response


class _Log:
    """Sends a worker's own stream its beginning, and the shared stream all records once every worker has begun."""

    def __init__(self, workers: int, records: int) -> None:
        self._batches = [filled(after, _BATCH).SerializeToString() for after in range(0, records, _BATCH)]
        self._begun = asyncio.Semaphore(0)
        self._workers = workers

    async def follow(self, request: pb.FollowLogRequest, _context: Any) -> AsyncIterator[bytes]:
        """Serve FollowLog."""
        if request.log_id:
            # Before the first message: the relay may end this stream right after it.
            self._begun.release()
        yield pb.FollowLogResponse(heads=[pb.ShardPosition(position=0)], log_id="log").SerializeToString()
        if request.log_id:
            await asyncio.Event().wait()
        for _ in range(self._workers):
            await self._begun.acquire()
        await asyncio.sleep(1.0)
        for batch in self._batches:
            yield batch
        await asyncio.Event().wait()


async def _serve_log(workers: int, records: int) -> None:
    server, log = Server(log_relay.RULES, TOKEN), _Log(workers, records)
    handler: Any = grpc.unary_stream_rpc_method_handler(cast("Any", log.follow), pb.FollowLogRequest.FromString, None)
    server.grpc.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("hooktide.ingest.v1.EventLogService", {"FollowLog": handler}),)
    )
    _say(await server.start("127.0.0.1:0"))
    await asyncio.Event().wait()


async def _follow(target: str, records: int, joined: asyncio.Barrier) -> None:
    async with open_channel(target) as channel:
        stub = event_log_pb2_grpc.EventLogServiceStub(channel)
        request = pb.FollowLogRequest(after=[pb.ShardPosition()], log_id="log")
        call: Any = stub.FollowLog(request, metadata=service_metadata(TOKEN))
        await call.read()
        if await joined.wait() == 0:
            _say("joined")
        position = 0
        while position < records:
            position = (await call.read()).records[-1].position
        call.cancel()


async def _run_workers(workers: int, records: int, target: str) -> None:
    joined = asyncio.Barrier(workers)
    await asyncio.gather(*(_follow(target, records, joined) for _ in range(workers)))
    _say("done")
    await asyncio.Event().wait()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    what, *numbers = sys.argv[1:]
    counts = [int(each) for each in numbers[:2]]
    uvloop.run(_serve_log(*counts) if what == "log" else _run_workers(counts[0], counts[1], numbers[2]))
