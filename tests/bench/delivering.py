"""Delivering: how fast and how soon events reach their callbacks, beside the same system with aiohttp, and beside the clients alone."""

import contextlib
import statistics
from functools import partial
from typing import NamedTuple

from tests.bench.bare_client import Speed
from tests.bench.figures import Bar, Row, percentile, ratio
from tests.bench.flows import Flows, alone, delivered, latencies, sample
from tests.bench.openers import PRODUCT, YARDSTICK
from tests.bench.part import Part
from tests.bench.plot import bars_svg, latency_svg
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


async def part(extent: Extent, steps: Steps) -> Part:
    """Measure; return the rows."""
    found = await measure(extent, steps)
    per_s = {name: [speed.per_s for speed in speeds] for name, speeds in found.speeds.items()}
    cpu_us = {name: [speed.cpu_us for speed in speeds] for name, speeds in found.speeds.items()}
    pictures = {
        "latency": latency_svg(sorted(1000 * each for one in found.latencies for each in one)),
        "deliveries": bars_svg("Deliveries a second, median and range", per_s),
    }
    return Part([*_speed_rows(per_s), *_latency_rows(found)], {"delivered_per_s": per_s, "cpu_us": cpu_us}, pictures)


def _speed_rows(per_s: dict[str, list[float]]) -> list[Row]:
    ours, unit = per_s[SYSTEM], "deliveries/s"
    return [
        ratio("delivered end to end ÷ the same system with aiohttp", ours, per_s[BY_AIOHTTP], unit, Bar(2)),
        ratio("the same system with aiohttp ÷ its client alone", per_s[BY_AIOHTTP], per_s[AIOHTTP], unit, Bar(0.45)),
        ratio("delivered end to end ÷ our client alone", ours, per_s[CLIENT], unit, None),
        ratio("delivered over TLS ÷ plaintext", per_s[BY_TLS], ours, unit, Bar(0.75)),
        ratio("fan-out 1 to 100 ÷ 1 to 1", per_s[FANNED], ours, unit, Bar(1.3)),
    ]


def _latency_rows(found: Delivering) -> list[Row]:
    at = f"at {found.half_per_s:,.0f} events/s, {sum(map(len, found.latencies)):,} events"

    def row(share: float, limit_ms: float) -> Row:
        values_ms = tuple(percentile(each, share) * 1000 for each in found.latencies)
        return Row(f"acknowledgement to arrival at half load, p{share * 100:.0f}", at, values_ms, Bar(limit_ms, at_least=False), " ms")

    return [row(0.5, 3), row(0.99, 15)]


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
