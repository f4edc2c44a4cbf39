"""Protocol: the interfaces through which the dispatcher's attempts leave, whatever the way out, and by which it tells of sinks.

lane → dispatcher → [protocol] → request/sender → transport; transition_reports

A way out is a webhook (`request/sender.py`), or one that comes later: a reader that pulls, another system.

Law 1: each `send` that returns is answered exactly once, on the event loop and never within `send`.
Law 2: an answer that has not begun (`Answer.begun` is False) is no attempt; its delivery waits again.
"""

from collections.abc import Callable
from typing import Protocol

from services.delivery.model import Attempt, Delivery
from services.delivery.request.request_settings import Subscription
from services.delivery.transport.protocol import Answer


class Sender(Protocol):
    """Carries attempts out, for all subscriptions of a worker."""

    def fresh(self) -> bool:
        """Return whether attempts may begin at all: what is known of the subscriptions is known to be current."""
        ...

    def may_send(self, subscription: Subscription, ready: Callable[[str], None]) -> bool:
        """Return whether an attempt for a subscription may begin now.

        If not, it calls `ready` with the subscription's id once another look is worthwhile, but never within this call.
        """
        ...

    def send(self, delivery: Delivery, subscription: Subscription, now_ms: int, done: Callable[[Answer], None]) -> None:
        """Begin an attempt after `may_send` returned True; `now_ms` is in ms since 1970.

        Raises `ValueError` if the event cannot be encoded; then `done` is never called.
        """
        ...

    def withdraw(self, subscription_id: str) -> None:
        """Take back a subscription's attempts that have not begun; each is answered as not begun."""
        ...

    def withdraw_all(self, consumer_id: str = "") -> None:
        """Take back the attempts that have not begun of one consumer, or of all (""); each is answered as not begun."""
        ...

    def forget(self, subscription_id: str) -> None:
        """Drop everything that is kept for a subscription, which is deleted or off."""
        ...

    def close(self) -> None:
        """From now on, begin nothing new for attempts that are under way."""
        ...


class SinkTransitions(Protocol):
    """Takes what happens to sinks, at any time within the dispatcher's own methods. Times are in ms since 1970."""

    def gone(self, subscription: Subscription) -> None:
        """Note that the sink has answered 410."""
        ...

    def failing(self, subscription: Subscription, since_ms: int, failures: int, last: Attempt) -> None:
        """Note that the circuit breaker has opened, for the first time since an attempt succeeded.

        `since_ms` is when the first of `failures` attempts failed that have failed in a row; `last` is the latest.
        """
        ...

    def recovered(self, subscription: Subscription, failing_since_ms: int) -> None:
        """Note the success that ends what `failing` has told."""
        ...

    def failed_too_long(self, subscription: Subscription, since_ms: int, last: Attempt) -> None:
        """Note that the sink has failed for so long that its subscription is to be disabled; called again after each further failure."""
        ...
