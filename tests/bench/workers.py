"""Workers: the CPU time of a delivery with two delivery workers, their parent included, beside one process."""

import contextlib
from functools import partial

from tests.bench.figures import Bar, ratio
from tests.bench.flows import Flows, delivered
from tests.bench.part import Part
from tests.bench.rounds import Extent, Steps, in_turn
from tests.bench.sink import sink
from tests.bench.world import bench_system

ONE, TWO = 1, 2
_DELIVERIES, _COPIES = 20_000, 4


async def part(extent: Extent, steps: Steps) -> Part:
    """Measure; return the rows."""
    count = extent.of(_DELIVERIES)
    async with contextlib.AsyncExitStack() as stack:
        seen = stack.enter_context(sink())
        ways = {}
        for workers in (ONE, TWO):
            system = await stack.enter_async_context(bench_system(settings={"HOOKTIDE_DELIVERY_WORKERS": str(workers)}))
            flow = await Flows(system, seen).flow(f"workers{workers}", copies=_COPIES)
            ways[str(workers)] = partial(delivered, flow, count)
        speeds = await in_turn("workers", ways, extent.rounds, steps)
    us = {name: [each.cpu_us for each in found] for name, found in speeds.items()}
    row = ratio("CPU of a delivery with 2 workers ÷ with 1, 4 subscriptions", us[str(TWO)], us[str(ONE)], "µs", Bar(1.1, at_least=False))
    return Part([row], {"workers_cpu_us": us})
