"""Attempt: make the one HTTP request of a delivery.

lane → [attempt] → transport → schedule
"""

from services.delivery import envelope, signing
from services.delivery.model import Attempt, Delivery, Subscription
from services.delivery.transport import Answer, Request

USER_AGENT = "Hooktide/0.1"


def request_of(delivery: Delivery, subscription: Subscription, now_ms: int) -> Request:
    """Return the request of the next attempt: the same body as always, signed anew for now.

    Raises `ValueError` where the event cannot be encoded.
    """
    event = delivery.event
    if event is None:
        message = "the event is not in memory"
        raise ValueError(message)
    if event.body is None:
        event.body = envelope.structured(event.record.event)
    timestamp_s = now_ms // 1000
    headers = {
        "content-type": envelope.CONTENT_TYPE,
        "user-agent": USER_AGENT,
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signing.signature(delivery.event_id, timestamp_s, event.body, subscription.secrets, now_ms),
        "hooktide-subscription-id": subscription.id,
        "hooktide-attempt": str(len(delivery.attempts) + 1),
    }
    return Request(subscription.sink, headers, event.body)


def attempt_of(answer: Answer, started_ms: int, duration_ms: int) -> Attempt:
    """Return the record of an attempt from its answer."""
    body = answer.body.decode("utf-8", "replace").replace("\x00", "\ufffd") if answer.body else ""
    return Attempt(started_ms, duration_ms, answer.outcome, answer.status, answer.error, body)
