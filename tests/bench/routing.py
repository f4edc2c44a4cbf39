"""Routing: what one event costs with few subscriptions and with many, of which as many match."""

import time

from services.delivery.model import Health, Subscription
from services.delivery.route import Router
from services.delivery.terms import Terms

FEW, MANY, MATCHES = 100, 100_000, 10
_EVENTS = 20_000


def measure(rounds: int) -> dict[str, list[float]]:
    """Return µs an event of each, one figure a round, measured in turn."""
    routers = {"few": _router(FEW), "many": _router(MANY)}
    figures: dict[str, list[float]] = {"few": [], "many": []}
    for _ in range(rounds):
        for name, router in routers.items():
            began = time.perf_counter()
            for _ in range(_EVENTS):
                found = router.search("shop.order.created", "/shop", "")
            figures[name].append((time.perf_counter() - began) / _EVENTS * 1e6)
            assert len(found) == MATCHES
    return figures


def _router(count: int) -> Router:
    """Make subscriptions of which MATCHES match, by exact type, by a type above it, and by source; the others do not."""
    router = Router()
    for number in range(count):
        types: tuple[str, ...] = (f"shop.order.other{number}", f"other{number}.*")
        if number < MATCHES:
            types = ("shop.order.created",) if number % 2 else ("shop.*",)
        source = "/shop" if number % 3 else ""
        consumer = f"con_{number % 50:032x}"
        router.put(Subscription(f"sub_{number:032x}", consumer, "https://example.com/", types, source, Health.ACTIVE, 1, Terms()))
    return router
