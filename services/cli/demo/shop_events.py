"""Shop events: the demo's events, from a shop, and the event types that each subscriber wants. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, cycle, islice

SOURCE = "/shop"
ACCOUNTING = "Accounting"
WAREHOUSE = "Warehouse"
WANTED: Mapping[str, tuple[str, ...]] = {
    ACCOUNTING: ("order.paid", "order.refunded", "invoice.*"),
    WAREHOUSE: ("order.*", "shipment.*", "stock.low"),
}
_CITIES = ("Lisbon", "Oslo", "Graz", "Porto", "Turku", "Ghent")
_ARTICLES = (("tea pot", 39.9), ("lamp", 120.0), ("notebook", 7.5), ("chair", 249.0), ("rug", 410.0))
_GIFT_EVERY, _LOW_EVERY, _REFUND_EVERY = 4, 5, 6


@dataclass(frozen=True, slots=True)
class ShopEvent:
    """One event of the shop. `audience` names the only subscriber that may receive it, None for all."""

    type: str
    subject: str
    data: Mapping[str, object]
    audience: str | None = None


def shop_events(number: int) -> list[ShopEvent]:
    """Return the first `number` events of a shop's day, the same on every call."""
    return list(islice(_day(), number))


def _day() -> Iterator[ShopEvent]:
    cities, articles = cycle(_CITIES), cycle(_ARTICLES)
    for order in count(1001):
        article, price = next(articles)
        subject, quantity = f"order-{order}", 1 + order % 3
        total = round(price * quantity, 2)
        yield ShopEvent("order.created", subject, {"order": order, "article": article, "quantity": quantity, "city": next(cities)})
        # A voucher is paid and never packed. The warehouse subscribes to order.*, and must not receive this event.
        voucher = order % _GIFT_EVERY == 0
        yield ShopEvent("order.paid", subject, {"order": order, "total": total, "voucher": voucher}, ACCOUNTING if voucher else None)
        yield ShopEvent("invoice.issued", subject, {"invoice": f"I-{order}", "total": total}, ACCOUNTING)
        if not voucher:
            yield ShopEvent("shipment.sent", subject, {"order": order, "parcels": 1 + quantity // 3})
        if order % _LOW_EVERY == 0:
            yield ShopEvent("stock.low", article.replace(" ", "-"), {"article": article, "left": order % 7}, WAREHOUSE)
        if order % _REFUND_EVERY == 0:
            yield ShopEvent("order.refunded", subject, {"order": order, "total": total})


def is_due(event: ShopEvent, subscriber: str) -> bool:
    """Return whether an event is due to a subscriber. This is written independently of the services, so that it tests them."""
    return event.audience in {None, subscriber} and any(_wants(wanted, event.type) for wanted in WANTED[subscriber])


def _wants(wanted: str, event_type: str) -> bool:
    return event_type.startswith(wanted[:-1]) if wanted.endswith(".*") else event_type == wanted
