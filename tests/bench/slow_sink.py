"""Slow sink: what a delivery costs if the sink takes 30 ms and events come as fast as emitters can send, beside a fast sink.

Such a sink is healthy. What it cannot take at once waits in the log, and no row is written before a delivery has ended. A fast sink takes
events at a higher rate, in larger batches, each of which costs about the same: so the fast sink is measured at the slow one's rate too.
"""

import contextlib
import statistics
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from tests.bench.bare_client import Speed
from tests.bench.crowd import subscribe
from tests.bench.figures import Bar, Row, ratio
from tests.bench.flows import Flow, delivered
from tests.bench.fresh import paced
from tests.bench.part import Part
from tests.bench.plot import bars_svg
from tests.bench.rounds import Extent, Steps, Way, in_turn
from tests.bench.sink import Sink, sink
from tests.bench.world import bench_system, cpu_s, quiet
from tests.support.consumers import Consumer, new_consumer
from tests.support.memory import metric
from tests.support.system.processes import System

ANSWER_AFTER_S = 0.03
_COPIES = (1, 100)
_FAST, _SLOW, _PACED = "fast sink", "slow sink", "fast sink at the slow one's rate"
_DELIVERIES, _ROUNDS_MAX = 10_000, 2
_OPENED = 'hooktide_ledger_rows_total{kind="open"}'


class Sent(NamedTuple):
    """One measurement."""

    speed: Speed
    opened: float
    """How many rows of unfinished deliveries were written."""


async def part(extent: Extent, steps: Steps) -> Part:
    """Measure; return three rows for one subscription and for a hundred."""
    found = await measure(extent, steps)
    cpu_us = {name: [each.speed.cpu_us for each in sent] for name, sent in found.items()}
    rows: list[Row] = []
    for copies in _COPIES:
        slow, fast, paced = (cpu_us[_name(kind, copies)] for kind in (_SLOW, _FAST, _PACED))
        what = f"sink of 30 ms, {copies} subscription{'' if copies == 1 else 's'}"
        rows.append(ratio(f"{what}: CPU a delivery ÷ a fast sink's", slow, fast, "µs", Bar(1.3, at_least=False)))
        rows.append(ratio(f"{what}: the same ÷ a fast sink's at the same rate", slow, paced, "µs", None))
        sent = found[_name(_SLOW, copies)]
        at = f"{statistics.median(each.speed.per_s for each in sent):,.0f} deliveries/s"
        rows.append(Row(f"{what}: rows of unfinished deliveries", at, tuple(each.opened for each in sent), Bar(0, at_least=False)))
    told = {name: [each._asdict() | each.speed._asdict() for each in sent] for name, sent in found.items()}
    return Part(rows, {"slow_sink": told}, {"slow-sink": bars_svg("CPU a delivery by sink and subscriptions, µs", cpu_us)})


async def measure(extent: Extent, steps: Steps) -> dict[str, list[Sent]]:
    """Return the measurements of each way, in the order of the rounds."""
    async with contextlib.AsyncExitStack() as stack:
        fast, slow = stack.enter_context(sink(max(_COPIES))), stack.enter_context(sink(max(_COPIES)))
        system = await stack.enter_async_context(bench_system())
        consumer, count = await new_consumer(system, "slow-sink"), extent.of(_DELIVERIES)
        await slow.behave(f"delay {ANSWER_AFTER_S}")
        ways: dict[str, Way[Sent]] = {}
        for copies in _COPIES:
            quick = await _flow(system, fast, consumer, f"fast{copies}", copies)
            late = await _flow(system, slow, consumer, f"slow{copies}", copies)
            pace = _Pace()
            ways[_name(_FAST, copies)] = partial(_sent, quick, count)
            ways[_name(_SLOW, copies)] = partial(_slow, late, count, pace)
            ways[_name(_PACED, copies)] = partial(_paced, quick, count, pace)
        return await in_turn("slow sink", ways, min(extent.rounds, _ROUNDS_MAX), steps)


@dataclass(slots=True)
class _Pace:
    """The rate that the slow sink has just had."""

    per_s: float = 0.0


async def _flow(system: System, seen: Sink, consumer: Consumer, name: str, copies: int) -> Flow:
    """Subscribe sinks at addresses of their own to the same events."""
    urls = seen.urls("http", copies)
    await subscribe(system, consumer.id, [f"{url}/{name}" for url in urls], [f"bench.{name}"])
    return Flow(system, seen, f"bench.{name}", urls[:1], copies)


async def _sent(flow: Flow, count: int, run: str) -> Sent:
    """Publish as fast as possible."""
    opened = await metric(flow.system, "delivery", _OPENED)
    speed = await delivered(flow, count, run)
    return Sent(speed, await metric(flow.system, "delivery", _OPENED) - opened)


async def _slow(flow: Flow, count: int, pace: _Pace, run: str) -> Sent:
    found = await _sent(flow, count, run)
    pace.per_s = found.speed.per_s
    return found


async def _paced(flow: Flow, count: int, pace: _Pace, run: str) -> Sent:
    """Publish at the rate that the slow sink had."""
    await quiet(flow.system)
    began_s, for_s = cpu_s(flow.system, "delivery"), count / pace.per_s
    fresh = await paced(flow, pace.per_s / flow.copies, for_s, run)
    await quiet(flow.system)
    return Sent(Speed(fresh.per_s * flow.copies, (cpu_s(flow.system, "delivery") - began_s) / count * 1e6), 0.0)


def _name(kind: str, copies: int) -> str:
    return f"{kind}, {copies} subscriptions"
