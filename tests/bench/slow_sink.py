"""Slow sink: what a delivery costs if the sink takes 30 ms and events come as fast as emitters can send, beside a fast sink.

Such a sink is healthy. What it cannot take at once waits in the log, and no row is written before a delivery has ended.
"""

import contextlib
from typing import NamedTuple

from tests.bench.bare_client import Speed
from tests.bench.figures import Bar, Row, ratio
from tests.bench.flows import Flow, Flows, delivered
from tests.bench.part import Part
from tests.bench.plot import bars_svg
from tests.bench.rounds import Extent, Steps, in_turn
from tests.bench.sink import sink
from tests.bench.world import bench_system
from tests.support.memory import metric

ANSWER_AFTER_S = 0.03
_COPIES = (1, 100)
_DELIVERIES, _ROUNDS_MAX = 10_000, 3
_OPENED = 'hooktide_ledger_rows_total{kind="open"}'


class Sent(NamedTuple):
    """One measurement."""

    speed: Speed
    opened: float
    """How many rows of unfinished deliveries were written."""


async def part(extent: Extent, steps: Steps) -> Part:
    """Measure; return two rows for one subscription and for a hundred."""
    found = await measure(extent, steps)
    cpu_us = {name: [each.speed.cpu_us for each in sent] for name, sent in found.items()}
    rows: list[Row] = []
    for copies in _COPIES:
        slow, fast = _name("slow", copies), _name("fast", copies)
        what = f"sink of 30 ms, {'1 subscription' if copies == 1 else f'{copies} subscriptions'}"
        rows.append(ratio(f"{what}: CPU a delivery ÷ a fast sink's", cpu_us[slow], cpu_us[fast], "µs", Bar(1.3, at_least=False)))
        per_s = sum(each.speed.per_s for each in found[slow]) / len(found[slow])
        opened = tuple(each.opened for each in found[slow])
        rows.append(Row(f"{what}: rows of unfinished deliveries", f"{per_s:,.0f} deliveries/s", opened, Bar(0, at_least=False)))
    told = {name: [each._asdict() | each.speed._asdict() for each in sent] for name, sent in found.items()}
    return Part(rows, {"slow_sink": told}, {"slow-sink": bars_svg("CPU a delivery by sink and subscriptions, µs", cpu_us)})


async def measure(extent: Extent, steps: Steps) -> dict[str, list[Sent]]:
    """Return the measurements of each way, in the order of the rounds."""
    async with contextlib.AsyncExitStack() as stack:
        fast, slow = stack.enter_context(sink()), stack.enter_context(sink())
        system = await stack.enter_async_context(bench_system())
        flows = {
            _name(kind, copies): await Flows(system, seen).flow(f"{kind}-{copies}", copies=copies)
            for kind, seen in (("fast", fast), ("slow", slow))
            for copies in _COPIES
        }
        await slow.behave(f"delay {ANSWER_AFTER_S}")

        async def sent(flow: Flow, run: str) -> Sent:
            opened = await metric(system, "delivery", _OPENED)
            speed = await delivered(flow, extent.of(_DELIVERIES), run)
            return Sent(speed, await metric(system, "delivery", _OPENED) - opened)

        ways = {name: lambda run, flow=flow: sent(flow, run) for name, flow in flows.items()}
        return await in_turn("slow sink", ways, min(extent.rounds, _ROUNDS_MAX), steps)


def _name(kind: str, copies: int) -> str:
    return f"{kind} sink, {copies} subscriptions"
