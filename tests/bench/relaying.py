"""Relaying: what a further delivery worker costs the parent that relays the log, and what a record costs a worker that it does not concern.

The parent runs in this process; the log and the workers run in another one (`relay_peer`), so this process' CPU time is the parent's.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from functools import partial

from hooktide.ingest.v1 import event_log_pb2 as pb

from services.delivery.parent import log_relay
from services.delivery.parent.log_relay import LogRelay
from services.eventlog.wire import record_from
from services.runtime.background import in_background
from services.runtime.rpc.channel_and_server import Server, open_channel
from tests.bench.figures import Bar, Row
from tests.bench.part import Part
from tests.bench.relay_peer import TOKEN, filled
from tests.bench.rounds import Extent, Steps, in_turn

FEW, MANY = 1, 4
_RECORDS = 60_000
_PARSED = 50


async def part(extent: Extent, steps: Steps) -> Part:
    """Measure; return the rows."""
    records = extent.of(_RECORDS)
    ways = {str(workers): partial(_relay_us, workers, records) for workers in (FEW, MANY)}
    us = await in_turn("relaying", ways, extent.rounds, steps)
    parsed = await in_turn("parsing", {"parse": _parse_us}, extent.rounds, steps)
    further = [(many - few) / (MANY - FEW) for few, many in zip(us[str(FEW)], us[str(MANY)], strict=True)]
    told = f"{MANY} workers {min(us[str(MANY)]):.2f}, {FEW} worker {min(us[str(FEW)]):.2f} µs a record"
    rows = [
        Row("the parent's CPU for a further worker, a record", told, tuple(further), Bar(1.0, at_least=False), " µs"),
        Row("a worker's CPU for parsing a record of 1 KB", "", tuple(parsed["parse"]), Bar(2.5, at_least=False), " µs"),
    ]
    return Part(rows, {"relay_us": us, "parse_us": parsed["parse"]})


async def _relay_us(workers: int, records: int, _run: str) -> float:
    """Return the CPU time of the parent for each record of the log, in µs."""
    async with contextlib.AsyncExitStack() as stack:
        log = await _peer("log", str(workers), str(records))
        stack.push_async_callback(_end, log)
        channel = await stack.enter_async_context(open_channel(await _line(log)))
        relay = LogRelay(channel, TOKEN, bytes_max=1 << 40)
        server = Server(log_relay.RULES, TOKEN)
        server.grpc.add_generic_rpc_handlers((relay.handler(),))
        await stack.enter_async_context(in_background(relay.run()))
        target = await server.start("127.0.0.1:0")
        stack.push_async_callback(server.stop, 0)
        followers = await _peer("workers", str(workers), str(records), target)
        stack.push_async_callback(_end, followers)
        await _line(followers)  # all have joined
        began = time.process_time()
        await _line(followers)  # all have everything
        return (time.process_time() - began) / records * 1e6


async def _parse_us(_run: str) -> float:
    """Return the CPU time for making the records of a message, in µs a record."""
    message = filled(0, 500).SerializeToString()
    began = time.process_time()
    for _ in range(_PARSED):
        records = [record_from(each) for each in pb.FollowLogResponse.FromString(message).records]
    return (time.process_time() - began) / _PARSED / len(records) * 1e6


async def _peer(*arguments: str) -> subprocess.Popen[bytes]:
    # Not by the event loop: uvloop forks, and a process that uses gRPC must not fork.
    command = [sys.executable, "-m", "tests.bench.relay_peer", *arguments]
    return await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)


async def _line(peer: subprocess.Popen[bytes]) -> str:
    assert peer.stdout is not None
    line = await asyncio.to_thread(peer.stdout.readline)
    assert line, "the other process has ended"
    return line.decode().strip()


async def _end(peer: subprocess.Popen[bytes]) -> None:
    peer.kill()
    await asyncio.to_thread(peer.wait)
    assert peer.stdout is not None
    peer.stdout.close()
