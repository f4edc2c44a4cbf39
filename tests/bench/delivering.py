"""Delivering: how fast and how soon events reach their callbacks, beside the same system with aiohttp, and beside the clients alone."""

import contextlib
import statistics
from functools import partial
from typing import NamedTuple

from tests.bench.bare_client import Speed
from tests.bench.flows import Flows, alone, delivered, latencies, sample
from tests.bench.openers import PRODUCT, YARDSTICK
from tests.bench.rounds import Extent, Steps, in_turn
from tests.bench.sink import sink
from tests.bench.world import bench_system

SYSTEM, BY_AIOHTTP, BY_TLS, FANNED = "end to end", "end to end with aiohttp", "end to end over TLS", "end to end, fan-out 1 to 100"
CLIENT, AIOHTTP = "our client alone", "aiohttp client alone"
_DELIVERIES, _FAN_OUT, _PACED_S = 20_000, 100, 6.0


class Delivering(NamedTuple):
    """The measurements."""

    speeds: dict[str, list[Speed]]
    """The speeds of each way, in the order of the rounds."""
    half_per_s: float
    """The deliveries a second at which the latencies were measured."""
    latencies: list[list[float]]
    """For each round, the seconds from acknowledgement to arrival, sorted."""


async def measure(extent: Extent, steps: Steps) -> Delivering:
    """Measure two systems that differ only in their transport."""
    count = extent.of(_DELIVERIES)
    async with contextlib.AsyncExitStack() as stack:
        seen = stack.enter_context(sink())
        steps.begin("delivering", 2)
        steps.step("starting the system")
        ours = Flows(await stack.enter_async_context(bench_system(roots=seen.roots)), seen)
        steps.step("starting the same with aiohttp")
        beside = await stack.enter_async_context(contextlib.AsyncExitStack())
        theirs = Flows(await beside.enter_async_context(bench_system(transport=YARDSTICK)), seen)
        one, by_aiohttp = await ours.flow("one"), await theirs.flow("one")
        by_tls, fanned = await ours.flow("tls", "https"), await ours.flow("fan", copies=_FAN_OUT)
        like = await sample(one)
        speeds = await in_turn(
            "delivering",
            {
                SYSTEM: partial(delivered, one, count),
                BY_AIOHTTP: partial(delivered, by_aiohttp, count),
                BY_TLS: partial(delivered, by_tls, count),
                FANNED: partial(delivered, fanned, count),
                CLIENT: partial(alone, one, like, PRODUCT, count),
                AIOHTTP: partial(alone, one, like, YARDSTICK, count),
            },
            extent.rounds,
            steps,
        )
        # Even if idle, this system would still take its turns on the core.
        await beside.aclose()
        half_per_s = statistics.median(speed.per_s for speed in speeds[SYSTEM]) / 2
        at_half = partial(latencies, one, half_per_s, _PACED_S / 20 if extent.quick else _PACED_S)
        paced = await in_turn("latency", {"at half load": at_half}, extent.rounds, steps)
    return Delivering(speeds, half_per_s, paced["at half load"])
