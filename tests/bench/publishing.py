"""Publishing: how fast events become durable, by the client, by a raw stream, and by the bare database."""

import asyncio
import time

import hooktide

from tests.bench.figures import Bar, ratio
from tests.bench.load import PER_MESSAGE, batches, events, publish_at_once
from tests.bench.part import Part
from tests.bench.plot import bars_svg
from tests.bench.rounds import Extent, Steps, in_turn
from tests.bench.world import bench_system, on_service_core, quiet
from tests.support.system.processes import System

CLIENT, RAW, BARE = "emitter client", "raw stream", "bare executemany"
_EVENTS, _WARM = 60_000, 5_000
_CALLERS = 1_000


async def part(extent: Extent, steps: Steps) -> Part:
    """Measure; return the rows."""
    per_s = await measure(extent, steps)
    client, raw, bare = (per_s[name] for name in (CLIENT, RAW, BARE))
    rows = [
        ratio("emitter client, 1 000 callers ÷ raw stream of 100 a message", client, raw, "events/s", Bar(0.5)),
        ratio("raw stream ÷ bare executemany of the same rows", raw, bare, "events/s", Bar(0.5)),
    ]
    return Part(rows, {"published_per_s": per_s}, {"publishing": bars_svg("Durable events a second, median and range", per_s)})


async def measure(extent: Extent, steps: Steps) -> dict[str, list[float]]:
    """Return durable events a second for each way, one figure a round; each round begins with an empty log, as the bare database does."""
    figures: dict[str, list[float]] = {}
    for number in range(extent.rounds):
        for name, (per_s,) in (await _round(f"publishing {number + 1}/{extent.rounds}", extent.of(_EVENTS), steps)).items():
            figures.setdefault(name, []).append(per_s)
    return figures


async def _round(part: str, count: int, steps: Steps) -> dict[str, list[float]]:
    async with bench_system("subscription", "ingest") as system:

        async def client(run: str) -> float:
            await quiet(system)
            return await _by_client(system, count, run)

        async def raw(run: str) -> float:
            made = batches(events(count, run))
            await quiet(system)
            return count / await publish_at_once(system, made)

        async def bare(run: str) -> float:
            await quiet(system)
            given = {"count": count, "per_transaction": PER_MESSAGE, "run": run}
            per_s: float = await on_service_core("tests.bench.bare_database", given)
            return per_s

        await publish_at_once(system, batches(events(_WARM, "warm-")))
        await _by_client(system, _WARM, "warm-client-")
        return await in_turn(part, {RAW: raw, CLIENT: client, BARE: bare}, 1, steps)


async def _by_client(system: System, count: int, run: str) -> float:
    """Emit by the client, with many callers that each wait for their receipts; return events a second."""
    following = iter(events(count, run))

    async def caller(emitter: hooktide.Emitter) -> None:
        for each in following:
            await emitter.emit_event(each)

    async with system.emitter() as emitter:
        began = time.perf_counter()
        await asyncio.gather(*(caller(emitter) for _ in range(_CALLERS)))
        return count / (time.perf_counter() - began)
