"""Routing: the cost of an event with few subscriptions and with many, when the same number matches."""

import time
from functools import partial

from services.delivery.model import SubscriptionStatus
from services.delivery.request.request_settings import RequestSettings, Subscription
from services.delivery.subscriptions.router import Router
from tests.bench.figures import Bar, ratio
from tests.bench.part import Part
from tests.bench.rounds import Extent, Steps, in_turn

FEW, MANY = "100 subscriptions", "100 000 subscriptions"
_COUNTS = {FEW: 100, MANY: 100_000}
_MATCHES, _EVENTS = 10, 20_000


async def part(extent: Extent, steps: Steps) -> Part:
    """Measure; return the row."""
    us = await measure(extent, steps)
    bar = Bar(1.5, at_least=False)
    row = ratio("routing with 100 000 subscriptions ÷ with 100, same matches", us[MANY], us[FEW], "µs/event", bar)
    return Part([row], {"routing_us": us})


async def measure(extent: Extent, steps: Steps) -> dict[str, list[float]]:
    """Return µs an event for each, one figure a round."""
    events = extent.of(_EVENTS)
    return await in_turn("routing", {name: partial(_us, _router(count), events) for name, count in _COUNTS.items()}, extent.rounds, steps)


async def _us(router: Router, events: int, _run: str) -> float:
    began = time.perf_counter()
    for _ in range(events):
        found = router.search("shop.order.created", "/shop", "")
    took_s = time.perf_counter() - began
    assert len(found) == _MATCHES
    return took_s / events * 1e6


def _router(count: int) -> Router:
    """Make subscriptions of which _MATCHES match, by exact type, by a type pattern above it, and by source; the others do not match."""
    router = Router()
    for number in range(count):
        types: tuple[str, ...] = (f"shop.order.other{number}", f"other{number}.*")
        if number < _MATCHES:
            types = ("shop.order.created",) if number % 2 else ("shop.*",)
        source = "/shop" if number % 3 else ""
        consumer = f"con_{number % 50:032x}"
        router.put(
            Subscription(
                f"sub_{number:032x}", consumer, "https://example.com/", types, source, SubscriptionStatus.ACTIVE, 1, RequestSettings()
            )
        )
    return router
