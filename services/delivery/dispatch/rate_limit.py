"""Rate limit: how long a lane must wait before its next attempt, by its subscription's rate.

lane → dispatcher → [rate_limit: token_bucket] → sender

The rate is the lower of what the sink has granted and what the subscription asks for; None means no limit.

Law: pure.
"""

from services.delivery.dispatch.lane import Lane
from services.delivery.request.request_settings import Subscription


def wait_s(lane: Lane, subscription: Subscription | None, now: float) -> float:
    """Return how long the next attempt has to wait, in seconds; 0 if it may start now."""
    rate = None if subscription is None else subscription.settings.rate_per_second
    return 0.0 if rate is None else lane.bucket.wait_s(rate, now)


def full_in_s(lane: Lane, subscription: Subscription | None, now: float) -> float:
    """Return for how many seconds a lane must be remembered: until then a new lane in its place could send more."""
    rate = None if subscription is None else subscription.settings.rate_per_second
    return 0.0 if rate is None else lane.bucket.full_in_s(rate, now)


def started(lane: Lane, subscription: Subscription, now: float) -> None:
    """Note that an attempt starts."""
    if subscription.settings.rate_per_second is not None:
        lane.bucket.take(subscription.settings.rate_per_second, now)
