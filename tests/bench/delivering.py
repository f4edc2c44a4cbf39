"""Delivering: how fast events reach their callbacks, beside the bare HTTP client, and how soon."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator

from hooktide.ingest.v1 import ingest_pb2

from tests.bench.publishing import raw_stream
from tests.bench.world import SERVICE_CORE, Sink, bench_consumer, bench_system, event, sink
from tests.e2e.consumers import Consumer
from tests.system.processes import ROOT, System
from tests.system.receiver import Endpoint

DELIVERIES = 20_000
FAN_OUT = 100
PACED_S = 6.0
_TICK_S = 0.01


async def measure(rounds: int) -> tuple[dict[str, list[float]], list[float]]:
    """Return deliveries a second of each way, one figure a round, and the latencies in seconds at half load, sorted."""
    figures: dict[str, list[float]] = {"one": [], "fan": [], "client": []}
    latencies: list[float] = []
    with sink() as seen:
        async with bench_system() as system:
            consumer = await bench_consumer(system)
            await subscribe(consumer, seen, "bench.one", 1)
            await subscribe(consumer, seen, "bench.fan", FAN_OUT)
            await delivered(system, seen, 2_000, "warm-", "bench.one", 1)
            for number in range(rounds):
                figures["one"].append(await delivered(system, seen, DELIVERIES, f"o{number}-", "bench.one", 1))
                figures["fan"].append(await delivered(system, seen, DELIVERIES // FAN_OUT, f"f{number}-", "bench.fan", FAN_OUT))
                figures["client"].append(bare_client(seen))
            rate = sorted(figures["one"])[len(figures["one"]) // 2] / 2
            latencies = sorted(await paced(system, seen, rate, "bench.one"))
    return figures, latencies


async def subscribe(consumer: Consumer, seen: Sink, type_: str, count: int) -> None:
    """Subscribe the sink, `count` times."""
    for number in range(count):
        await consumer.subscribe(Endpoint(f"{type_}-{number}", f"{seen.url}/{type_}/{number}"), [type_])


async def delivered(system: System, seen: Sink, events: int, run: str, type_: str, copies: int) -> float:
    """Publish as fast as it goes; return deliveries a second from the first event sent to the last webhook come."""
    await seen.forget()
    began = time.monotonic_ns()
    await raw_stream(system, events, run, type_)
    last = await seen.counted(events * copies)
    return events * copies / ((last - began) / 1e9)


async def paced(system: System, seen: Sink, rate: float, type_: str) -> list[float]:
    """Publish at a steady rate; return for each event the seconds from its acknowledgement to its arrival."""
    await seen.forget()
    per_tick = max(1, int(rate * _TICK_S))
    ticks = int(PACED_S / _TICK_S)
    acknowledged: dict[str, int] = {}

    async def send() -> AsyncIterator[ingest_pb2.PublishStreamRequest]:
        began = time.monotonic()
        for tick in range(ticks):
            await asyncio.sleep(max(0.0, began + tick * _TICK_S - time.monotonic()))
            numbers = range(tick * per_tick, (tick + 1) * per_tick)
            yield ingest_pb2.PublishStreamRequest(events=[event(number, run="paced-", type_=type_) for number in numbers])

    call = system.ingest.PublishStream(send(), metadata=(("authorization", f"Bearer {system.first.emitter}"),))
    async for answer in call:
        now = time.monotonic_ns()
        acknowledged.update((result.receipt.event_id, now) for result in answer.results)
    await seen.counted(per_tick * ticks)
    arrivals = await seen.arrivals()
    # A webhook may arrive before its emitter has read the acknowledgement: that is no time at all.
    return [max(0, arrivals[event_id] - at) / 1e9 for event_id, at in acknowledged.items()]


def bare_client(seen: Sink) -> float:
    """Send the same requests by the transport alone, in a process on the services' core."""
    command = [sys.executable, "-m", "tests.bench.bare_client", "pycurl", str(SERVICE_CORE), seen.url, str(DELIVERIES)]
    answer = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, timeout=120)  # noqa: S603 - ours
    rate: float = json.loads(answer.stdout)
    return rate
