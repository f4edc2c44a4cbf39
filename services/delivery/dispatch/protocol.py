"""Protocol: the interface through which the dispatcher's attempts leave, whatever the way out.

lane → dispatcher → [protocol] → request/sender → transport

A way out is a webhook (`request/sender.py`), or one that comes later: a reader that pulls, another system.

Law 1: each `send` that returns is answered exactly once, on the event loop and never within `send`.
Law 2: an answer that has not begun (`Answer.begun` is False) is no attempt; its delivery waits again.
"""

from collections.abc import Callable
from typing import Protocol

from services.delivery.model import Delivery
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

    def forget(self, subscription_id: str) -> None:
        """Drop everything that is kept for a subscription, which is deleted or off."""
        ...

    def close(self) -> None:
        """From now on, begin nothing new for attempts that are under way."""
        ...
