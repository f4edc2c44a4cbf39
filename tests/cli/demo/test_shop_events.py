import pytest

from services.cli.demo.shop_events import ACCOUNTING, WAREHOUSE, ShopEvent, is_due, shop_events


def test_a_day_in_the_shop_is_the_same_every_time_and_has_everything_in_it() -> None:
    events = shop_events(200)
    assert events == shop_events(200)
    assert len(events) == 200
    assert {event.type for event in events} == {
        *("order.created", "order.paid", "order.refunded", "invoice.issued", "shipment.sent", "stock.low"),
    }
    assert {event.audience for event in events} == {None, ACCOUNTING, WAREHOUSE}


@pytest.mark.parametrize(
    ("event_type", "audience", "due"),
    [
        ("order.paid", None, {ACCOUNTING, WAREHOUSE}),
        ("order.paid", ACCOUNTING, {ACCOUNTING}),
        ("order.created", None, {WAREHOUSE}),
        ("order.created", ACCOUNTING, set()),
        ("invoice.issued", None, {ACCOUNTING}),
        ("invoice", None, set()),
        ("stock.low", None, {WAREHOUSE}),
        ("stock.lower", None, set()),
    ],
)
def test_an_event_is_due_by_type_and_audience(event_type: str, audience: str | None, due: set[str]) -> None:
    event = ShopEvent(event_type, "s", {}, audience)
    assert {name for name in (ACCOUNTING, WAREHOUSE) if is_due(event, name)} == due
