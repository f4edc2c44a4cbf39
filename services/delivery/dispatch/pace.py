"""Pace: how much a lane may send, by what its subscription wants within what the operator permits.

lane → [pace: bucket] → push

Law: pure.
"""

from services.delivery.dispatch.lane import Lane
from services.delivery.request.settings import Subscription


def wait_s(lane: Lane, subscription: Subscription | None, now: float) -> float:
    """Return how long the next attempt has to wait."""
    rate = None if subscription is None else subscription.terms.rate_per_second
    return 0.0 if rate is None else lane.bucket.wait_s(rate, now)


def rested_in_s(lane: Lane, subscription: Subscription | None, now: float) -> float:
    """Return how long a lane is to be remembered: until then a new one in its place could send more."""
    rate = None if subscription is None else subscription.terms.rate_per_second
    return 0.0 if rate is None else lane.bucket.full_in_s(rate, now)


def started(lane: Lane, subscription: Subscription, now: float) -> None:
    """Note that an attempt starts."""
    if subscription.terms.rate_per_second is not None:
        lane.bucket.take(subscription.terms.rate_per_second, now)
