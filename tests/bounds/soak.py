"""Soak: very many events pass, and every process takes as much memory at the end as at the beginning.

    python -m tests.bounds.soak --events 500000

Two subscriptions get every event; emitting stays at most `--ahead` events before the slower of them. After a warm-up
(the first fifth) no process may grow by more than `--growth` MB. The program exits with 1 if a process does, or if an event is missing.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.consumers import new_consumer
from tests.support.memory import MB, Samples, sampled
from tests.support.numbered_events import publish_numbered
from tests.support.system.processes import SERVICES, System, running_system
from tests.support.webhook_receivers.order_receiver import OrderReceiver, running_order_receiver

ENDPOINTS = ("one", "other")


@dataclass(frozen=True, slots=True)
class Result:
    """The measurements; sizes are resident memory in bytes, by service."""

    took_s: float
    begun_with: dict[str, int]
    """The largest sample of each service before the end of the warm-up."""
    most: dict[str, int]
    """The largest sample of each service after the warm-up."""
    ended_with: dict[str, int]

    def growth(self, service: str) -> int:
        """Return how much more memory a service took after the warm-up than before its end."""
        return self.most[service] - self.begun_with[service]


async def measure(
    system: System,
    orders: OrderReceiver,
    events: int,
    *,
    ahead: int,
    within_s: float,
    run: str = "",
    size_bytes: int = 1000,
    tell: Callable[[str], None] | None = None,
) -> Result:
    """Let a number of events pass and compare the memory before and after the end of the warm-up."""
    consumer = await new_consumer(system, "soak")
    made = []
    for endpoint in ENDPOINTS:
        body = {"sink": orders.url(endpoint), "types": ["bounds.*"]}
        status, answer = await system.call("POST", "/v1/subscriptions", consumer.key, body)
        assert status == 201, answer
        made.append(str(answer["id"]))
    began = time.monotonic()
    warm: list[dict[str, list[int]]] = []

    async def pace(number: int) -> None:
        """Wait if the endpoints are too far behind; note when the warm-up ends."""
        for endpoint in ENDPOINTS:
            if number > ahead:
                await orders.counted(endpoint, number - ahead, within_s)
        if not warm and number >= events // 5:
            warm.append(samples.taken)
            samples.taken = {}
            samples.take()

    async with sampled(system, SERVICES, tell=tell) as samples:
        receipts = await publish_numbered(system, events, size_bytes=size_bytes, run=run, pace=pace)
        for endpoint in ENDPOINTS:
            await orders.counted(endpoint, events, within_s)
    assert len({receipt.event_id for receipt in receipts}) == events
    for endpoint in ENDPOINTS:
        assert set(await orders.first(endpoint)) == set(range(events)), "not every event"
    for subscription_id in made:
        await consumer.unsubscribe(subscription_id)
    before = Samples(system, SERVICES, warm[0])
    return Result(
        time.monotonic() - began,
        {name: before.most(name) for name in SERVICES},
        {name: samples.most(name) for name in SERVICES},
        {name: samples.taken[name][-1] for name in SERVICES},
    )


async def main(arguments: argparse.Namespace) -> int:
    """Measure, print, and return the exit code."""

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory(prefix="hooktide-soak-") as folder:
        async with running_system(Path(folder)) as system, running_order_receiver() as orders:
            result = await measure(system, orders, arguments.events, ahead=arguments.ahead, within_s=arguments.within, tell=tell)
    per_s = arguments.events / result.took_s
    tell(f"{arguments.events} events, {2 * arguments.events} deliveries in {result.took_s:.0f} s ({per_s:.0f} events/s)")
    for name in SERVICES:
        tell(
            f"{name:<13} {result.begun_with[name] / MB:6.1f} MB in the warm-up, then at most {result.most[name] / MB:6.1f} MB"
            f" ({result.growth(name) / MB:+.1f}), {result.ended_with[name] / MB:6.1f} MB in the end"
        )
    good = all(result.growth(name) <= arguments.growth * MB for name in SERVICES)
    tell("good" if good else f"BAD: the bound is {arguments.growth} MB more than in the warm-up")
    return 0 if good else 1


def parsed() -> argparse.Namespace:
    """Return the command's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.bounds.soak", description="Very many events, flat memory.")
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--ahead", type=int, default=20_000, help="how far emitting may be before the slower endpoint, in events")
    parser.add_argument("--growth", type=float, default=25.0, help="the bound, in MB")
    parser.add_argument("--within", type=float, default=300.0, help="how long to wait for an endpoint, in seconds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parsed())))
