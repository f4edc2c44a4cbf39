"""Sink reports: decide what a sink's owner is told after an attempt has failed.

dispatcher → [sink_reports: sink_health] → SinkTransitions

Law: a failed delivery of a notice makes no notice, so that notices never make notices without end.
"""

from services.delivery.dispatch.protocol import SinkTransitions
from services.delivery.dispatch.sink_health import SinkHealth
from services.delivery.model import Delivery
from services.delivery.request.request_settings import Subscription
from services.runtime.event_types import is_reserved


def tell_failure(
    sinks: SinkTransitions,
    subscription: Subscription,
    health: SinkHealth,
    delivery: Delivery,
    *,
    now_ms: int,
    unix_ms: int,
    disable_after_s: float,
) -> None:
    """Tell once that a sink is failing, until it recovers. Tell after each failure if it has failed for too long.

    `now_ms` is the present time by the due clock, `unix_ms` in ms since 1970.
    """
    period, last = health.failing, delivery.attempts[-1]
    period.failed(now_ms)
    since_ms = unix_ms - (now_ms - period.since_ms)
    if period.is_too_long(int(disable_after_s * 1000)):
        sinks.failed_too_long(subscription, since_ms, last)
    if health.is_open and health.told_failing_since_ms is None and not is_reserved(delivery.event_type):
        health.told_failing_since_ms = since_ms
        sinks.failing(subscription, since_ms, period.failures, last)
