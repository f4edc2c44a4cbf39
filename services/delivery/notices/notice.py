"""Notice: the events by which Hooktide tells a consumer what becomes of its subscriptions and deliveries.

dispatcher, recorder, registry_watch → [notice] → outbox → ledger → notice_publisher

Law 1: pure.
Law 2: a notice's id is derived from the transition that it tells of, so the same transition makes the same notice.
Law 3: no transition that a delivery of a notice causes makes a notice; otherwise notices about notices would never end.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import orjson

from services.delivery.ledger.rows import NoticeRow
from services.delivery.model import Attempt, Delivery
from services.delivery.transport.protocol import Outcome
from services.runtime.event_types import is_reserved
from services.runtime.ids import id_text

FAILING: Final = "hooktide.subscription.failing"
RECOVERED: Final = "hooktide.subscription.recovered"
DISABLED: Final = "hooktide.subscription.disabled"
EXPIRING: Final = "hooktide.subscription.expiring"
EXHAUSTED: Final = "hooktide.delivery.exhausted"
_REASON_CHARS_MAX = 500


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice. Its event has this id, type, time and subject, the consumer as its audience, and the data as JSON."""

    id: str
    consumer_id: str
    type: str
    subject: str
    """The subscription's id; empty if the notice is about several. Notices of one subject keep their order in the log."""
    time_ms: int
    """When the transition happened, in ms since 1970."""
    data: bytes
    """A JSON object."""


def failing(
    consumer_id: str, subscription_id: str, sink_revision: int, *, since_ms: int, now_ms: int, failures: int, last: Attempt
) -> Notice:
    """Return the notice that a subscription's circuit breaker has opened, for the first time since an attempt succeeded.

    `since_ms` is when the first of these attempts failed; `failures` is how many have failed in a row.
    """
    data = {
        "subscription_id": subscription_id,
        "state": "failing",
        "since": time_text(since_ms),
        "failures": failures,
        "last_status": last.status,
        "reason": failure_text(last),
    }
    return _notice(FAILING, consumer_id, subscription_id, (sink_revision, since_ms), now_ms, data)


def recovered(consumer_id: str, subscription_id: str, sink_revision: int, *, failing_since_ms: int, now_ms: int) -> Notice:
    """Return the notice that an attempt has succeeded for the first time since a `failing` notice."""
    data = {
        "subscription_id": subscription_id,
        "state": "active",
        "since": time_text(now_ms),
        "failing_since": time_text(failing_since_ms),
    }
    return _notice(RECOVERED, consumer_id, subscription_id, (sink_revision, now_ms), now_ms, data)


def disabled(consumer_id: str, subscription_id: str, sink_revision: int, *, since_ms: int, reason: str) -> Notice:
    """Return the notice that the registry has disabled a subscription; its waiting deliveries are cancelled."""
    data = {"subscription_id": subscription_id, "state": "disabled", "since": time_text(since_ms), "reason": reason[:_REASON_CHARS_MAX]}
    return _notice(DISABLED, consumer_id, subscription_id, (sink_revision,), since_ms, data)


def expiring(consumer_id: str, subscription_id: str, at: str, *, waiting_since_ms: int, expires_ms: int, now_ms: int) -> Notice:
    """Return the notice that the log will soon drop events that wait for a subscription, which ends their deliveries as exhausted.

    `at` names where the waiting events begin; `waiting_since_ms` is when the oldest was accepted, `expires_ms` when it will be dropped.
    """
    data = {
        "subscription_id": subscription_id,
        "state": "expiring",
        "since": time_text(waiting_since_ms),
        "expires_at": time_text(expires_ms),
        "reason": "the oldest waiting events reach the end of the log's retention; resume the subscription or repair its sink before then",
    }
    return _notice(EXPIRING, consumer_id, subscription_id, (at,), now_ms, data)


def exhausted(delivery: Delivery) -> Notice | None:
    """Return the notice that a delivery is exhausted; None if the delivery is itself one of a notice."""
    if is_reserved(delivery.event_type):
        return None
    delivery_id, attempts = id_text("dlv", delivery.id), delivery.attempts
    data = {
        "subscription_id": delivery.subscription_id,
        "state": "exhausted",
        "since": time_text(delivery.finished_ms),
        "delivery_id": delivery_id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "attempts": len(attempts),
        "last_status": attempts[-1].status if attempts else 0,
        "reason": failure_text(attempts[-1]) if attempts else "the delivery expired before its first attempt",
    }
    return _notice(EXHAUSTED, delivery.consumer_id, delivery.subscription_id, (delivery_id,), delivery.finished_ms, data)


def suppressed(first: Notice, count: int) -> Notice:
    """Return the notice that stands for `count` notices of one type and consumer that found no room; `first` is the first of them."""
    data = {
        "suppressed": count,
        "since": time_text(first.time_ms),
        "reason": "too many notices of this type were waiting to be published; list the subscriptions or deliveries to see all of them",
    }
    return _notice(first.type, first.consumer_id, "", ("suppressed", first.id), first.time_ms, data)


def failure_text(attempt: Attempt) -> str:
    """Return in a sentence how an attempt failed."""
    if attempt.outcome == Outcome.STATUS:
        return f"the sink answered with the status {attempt.status}"
    return (attempt.error or f"the attempt failed: {Outcome(attempt.outcome).name.lower()}")[:_REASON_CHARS_MAX]


def time_text(time_ms: int) -> str:
    """Return a time as RFC 3339 has it, in UTC with milliseconds."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def row_of(notice: Notice) -> NoticeRow:
    """Return the row of the outbox for a notice."""
    stored = orjson.dumps({"type": notice.type, "subject": notice.subject, "data": orjson.Fragment(notice.data)})
    return NoticeRow(notice.id, notice.consumer_id, stored, notice.time_ms)


def notice_of(row: NoticeRow) -> Notice:
    """Return the notice in a row of the outbox, with the same bytes as its data whenever it is read."""
    stored = orjson.loads(row.notice)
    return Notice(row.id, row.consumer_id, stored["type"], stored["subject"], row.created_ms, orjson.dumps(stored["data"]))


def _notice(type_: str, consumer_id: str, subject: str, transition: tuple[object, ...], time_ms: int, data: Mapping[str, object]) -> Notice:
    key = " ".join(map(str, (type_, consumer_id, subject, *transition)))
    notice_id = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return Notice(notice_id, consumer_id, type_, subject, time_ms, orjson.dumps(data))
