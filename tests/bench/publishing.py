"""Publishing: how fast events become durable, by the client, by a raw stream, and by the bare database."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import hooktide
from hooktide.ingest.v1 import ingest_pb2

from tests.bench.world import SERVICE_CORE, bench_system, event, requests
from tests.system.processes import ROOT, System

EVENTS = 60_000
PER_MESSAGE = 100
CALLERS = 1_000


async def measure(rounds: int) -> dict[str, list[float]]:
    """Return acknowledged events a second of each way, one figure a round, measured in turn."""
    figures: dict[str, list[float]] = {"client": [], "raw": [], "bare": []}
    async with bench_system("subscription", "ingest") as system:
        await raw_stream(system, 5_000, "warm")
        await client(system, 5_000, "warmc")
        for number in range(rounds):
            figures["raw"].append(await raw_stream(system, EVENTS, f"r{number}-"))
            figures["client"].append(await client(system, EVENTS, f"c{number}-"))
            figures["bare"].append(bare_executemany())
    return figures


async def raw_stream(system: System, count: int, run: str, type_: str = "bench.made") -> float:
    """Publish over one stream, many messages under way."""
    messages = requests(count, PER_MESSAGE, run, type_)

    async def send() -> AsyncIterator[ingest_pb2.PublishStreamRequest]:
        for message in messages:
            yield message

    began = time.perf_counter()
    acknowledged = 0
    call = system.ingest.PublishStream(send(), metadata=(("authorization", f"Bearer {system.first.emitter}"),))
    async for answer in call:
        acknowledged += sum(1 for result in answer.results if result.HasField("receipt"))
    took = time.perf_counter() - began
    assert acknowledged == count, f"{count - acknowledged} events were refused"
    return count / took


async def client(system: System, count: int, run: str) -> float:
    """Emit by the client, many callers at once, each waiting for its receipt."""
    events = [event(number, run=run) for number in range(count)]
    following = iter(events)

    async def caller(emitter: hooktide.Emitter) -> None:
        for each in following:
            await emitter.emit_event(each)

    async with system.emitter() as emitter:
        began = time.perf_counter()
        await asyncio.gather(*(caller(emitter) for _ in range(CALLERS)))
        return count / (time.perf_counter() - began)


def bare_executemany() -> float:
    """Insert the same rows by `executemany` into the same schema with the same durability, in a process on the services' core."""
    command = [sys.executable, "-m", "tests.bench.bare_database", str(SERVICE_CORE), str(EVENTS), str(PER_MESSAGE)]
    answer = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, timeout=120)  # noqa: S603 - ours
    rate: float = json.loads(answer.stdout)
    return rate
