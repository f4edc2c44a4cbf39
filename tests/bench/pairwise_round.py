"""Pairwise round: measures the checkout that PYTHONPATH names, once, and prints the figures as JSON.

It uses only those functions of `tests.bench` that both checkouts have. `pairwise` runs it.
"""

import contextlib
import json
import sys

import uvloop

from tests.bench import publishing, routing
from tests.bench.figures import percentile
from tests.bench.flows import Flow, Flows, delivered, latencies
from tests.bench.rounds import Extent
from tests.bench.sink import sink
from tests.bench.world import bench_system, pin

_DELIVERIES, _FAN_OUT = 20_000, 100
# The same load for both sides, about half of what one core can do.
_PACED_PER_S, _PACED_S = 4_000.0, 6.0


class _Silent:
    def begin(self, part: str, count: int) -> None:
        """Tell nobody."""

    def step(self, what: str) -> None:
        """Tell nobody."""


async def main(extent: Extent) -> dict[str, float]:
    """Return each figure by its name, which ends with the unit."""
    steps = _Silent()
    published = await publishing.measure(extent, steps)
    found = {f"published by {name}, events/s": published[name][0] for name in (publishing.CLIENT, publishing.RAW)}
    async with contextlib.AsyncExitStack() as stack:
        seen = stack.enter_context(sink())
        flows = Flows(await stack.enter_async_context(bench_system(roots=seen.roots)), seen)
        ways = {
            "delivered end to end": await flows.flow("one"),
            "delivered over TLS": await flows.flow("tls", "https"),
            "delivered, fan-out 1 to 100": await flows.flow("fan", copies=_FAN_OUT),
        }
        for name, flow in ways.items():
            found |= await _delivered(name, flow, extent.of(_DELIVERIES))
        waits = await latencies(ways["delivered end to end"], _PACED_PER_S, _PACED_S / 20 if extent.quick else _PACED_S, "paced-")
        found |= {f"acknowledgement to arrival, p{share * 100:.0f}, ms": 1000 * percentile(waits, share) for share in (0.5, 0.99)}
    routed = await routing.measure(extent, steps)
    return found | {f"routing with {name}, µs": us for name, (us,) in routed.items()}


async def _delivered(name: str, flow: Flow, count: int) -> dict[str, float]:
    speed = await delivered(flow, count, f"{flow.type_}-")
    return {f"{name}, deliveries/s": speed.per_s, f"{name}, CPU a delivery, µs": speed.cpu_us}


if __name__ == "__main__":
    pin()
    sys.stdout.write(json.dumps(uvloop.run(main(Extent(1, quick="quick" in sys.argv)))))
