"""Pending: a subscription with very many pending deliveries drains in order, and its worker's memory stays flat.

    python -m tests.bounds.pending --deliveries 200000

The endpoint is down while the events are published, and returns when all of them are routed. The program exits with 1 if the delivery
service takes more than `--above-idle` MB beyond its idle memory, or if the deliveries do not come in the order of
their events' positions.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from tests.support.consumers import new_consumer
from tests.support.memory import MB, metric, resident_bytes, sampled
from tests.support.numbered_events import publish_numbered
from tests.support.system.processes import System, running_system
from tests.support.webhook_receivers.order_receiver import OrderReceiver, running_order_receiver

ROUTED = "hooktide_routed_events_total"
_WARM = 500
# How many places later than its turn a delivery may come: with 64 attempts under way, one of them may take long.
_DISPLACED_MAX = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """The measurements; sizes are the delivery service's resident memory in bytes."""

    idle: int
    most_while_pending: int
    most_while_draining: int
    routed_in_s: float
    drained_in_s: float
    displaced_by: int
    """The largest number of positions by which a first attempt came too late."""
    tried_before: int
    """How many deliveries had been tried while the endpoint was down; they came last."""

    @property
    def above_idle(self) -> int:
        """The largest memory above idle."""
        return max(self.most_while_pending, self.most_while_draining) - self.idle


async def measure(
    system: System,
    orders: OrderReceiver,
    deliveries: int,
    *,
    within_s: float,
    size_bytes: int = 1000,
    endpoint: str = "pending",
    tell: Callable[[str], None] | None = None,
) -> Result:
    """Let a number of deliveries wait for an endpoint that is down, then let the endpoint return."""
    consumer = await new_consumer(system, "pending")
    status, answer = await system.call("POST", "/v1/subscriptions", consumer.key, {"sink": orders.url(endpoint), "types": ["bounds.*"]})
    assert status == 201, answer
    await publish_numbered(system, _WARM, run=f"{endpoint}-warm-")
    await orders.counted(endpoint, _WARM, within_s)
    orders.down()
    idle = resident_bytes(system, "delivery")
    due = await metric(system, "delivery", ROUTED) + deliveries
    began = time.monotonic()
    async with sampled(system, ["delivery"], tell=tell) as pending:
        receipts = await publish_numbered(system, deliveries, size_bytes=size_bytes, run=f"{endpoint}-")
        while await metric(system, "delivery", ROUTED) < due:
            assert time.monotonic() < began + within_s, "not all are routed in time"
            await asyncio.sleep(0.05)
    assert all(one.position < other.position for one, other in pairwise(receipts))
    routed_in_s = time.monotonic() - began
    await orders.up()
    async with sampled(system, ["delivery"], tell=tell) as draining:
        # A probe finds out some time later that the endpoint is back.
        await orders.counted(endpoint, 1, within_s)
        began = time.monotonic()
        await orders.counted(endpoint, deliveries, within_s)
        drained_in_s = time.monotonic() - began
    first, again = await orders.first(endpoint), await orders.again(endpoint)
    assert sorted(first + again) == list(range(deliveries)), "not each exactly once"
    await consumer.unsubscribe(str(answer["id"]))
    most = pending.most("delivery"), draining.most("delivery")
    return Result(idle, *most, routed_in_s, drained_in_s, _displacement(first), len(again))


def _displacement(numbers: Sequence[int]) -> int:
    """Return the largest amount by which a number is below an earlier number."""
    return max((highest - number for number, highest in zip(numbers, accumulate(numbers, max), strict=True)), default=0)


async def main(arguments: argparse.Namespace) -> int:
    """Measure, print, and return the exit code."""

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory(prefix="hooktide-pending-") as folder:
        async with running_system(Path(folder)) as system, running_order_receiver() as orders:
            result = await measure(system, orders, arguments.deliveries, size_bytes=arguments.bytes, within_s=arguments.within, tell=tell)
    tell(f"{arguments.deliveries} deliveries of {arguments.bytes} bytes: routed in {result.routed_in_s:.1f} s")
    tell(f"drained in {result.drained_in_s:.1f} s ({arguments.deliveries / result.drained_in_s:.0f}/s)")
    tell(f"out of order by at most {result.displaced_by} positions; {result.tried_before} had been tried before and came last")
    tell(
        f"delivery: idle {result.idle / MB:.1f} MB, at most {result.most_while_pending / MB:.1f} MB while they waited"
        f" and {result.most_while_draining / MB:.1f} MB while they drained: {result.above_idle / MB:+.1f} MB"
    )
    good = result.above_idle <= arguments.above_idle * MB and result.displaced_by <= _DISPLACED_MAX
    tell("good" if good else f"BAD: the bounds are {arguments.above_idle} MB above idle and {_DISPLACED_MAX} positions")
    return 0 if good else 1


def parsed() -> argparse.Namespace:
    """Return the command's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.bounds.pending", description="Many pending deliveries of one subscription.")
    parser.add_argument("--deliveries", type=int, default=200_000)
    parser.add_argument("--bytes", type=int, default=1000, help="the size of an event's data")
    parser.add_argument("--above-idle", type=float, default=50.0, help="the bound, in MB")
    parser.add_argument("--within", type=float, default=900.0, help="for each phase, in seconds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parsed())))
