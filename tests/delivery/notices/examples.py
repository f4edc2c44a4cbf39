"""Examples: notices for tests."""

from services.delivery.model import Delivery, State, delivery_id
from services.delivery.notices.notice import Notice, exhausted
from services.runtime.ids import new_id

NOW_MS = 1_900_000_000_123
CONSUMER, SUBSCRIPTION = new_id("con"), new_id("sub")


def ended_delivery(event_type: str = "order.created", consumer_id: str = CONSUMER) -> Delivery:
    """Return a new delivery that is exhausted, without attempts."""
    event_id = new_id("evt")
    delivery = Delivery(
        id=delivery_id(event_id, SUBSCRIPTION),
        event_id=event_id,
        shard=0,
        partition=0,
        position=1,
        event_type=event_type,
        accepted_ms=NOW_MS - 5000,
        subscription_id=SUBSCRIPTION,
        consumer_id=consumer_id,
        revision=3,
        event=None,
    )
    delivery.state, delivery.finished_ms = State.EXHAUSTED, NOW_MS
    return delivery


def notice(consumer_id: str = CONSUMER) -> Notice:
    """Return a notice of a delivery that was never attempted."""
    made = exhausted(ended_delivery(consumer_id=consumer_id))
    assert made is not None
    return made
