"""Transition reports: tells owners and the registry what happens to sinks and subscriptions.

dispatcher, registry_watch → [transition_reports] → outbox → notice_publisher
                                                  → disable_reports ─gRPC─▶ registry

Law: a transition's notice is in the outbox before anything is awaited, so the flush that records the transition writes the notice too.
"""

from services.delivery.model import Attempt
from services.delivery.notices import notice
from services.delivery.notices.outbox import Outbox
from services.delivery.request.request_settings import Subscription
from services.delivery.subscriptions.disable_reports import GONE_REASON, DisableReports
from services.runtime.clock import Clock, unix_ms

# The log knows a repeated notice by its id for as long as it keeps events. A day is well within that, whatever the operator's retention.
_KNOWN_TO_LOG_MS = 23 * 3_600_000


class TransitionReports:
    """Takes the transitions of one worker's subscriptions."""

    def __init__(self, outbox: Outbox, disable_reports: DisableReports, clock: Clock) -> None:
        self._outbox = outbox
        self._disable_reports = disable_reports
        self._clock = clock

    def gone(self, subscription: Subscription) -> None:
        """See `SinkTransitions.gone`."""
        self._disable_reports.report(subscription.id, subscription.settings.sink_revision, GONE_REASON)

    def failing(self, subscription: Subscription, since_ms: int, failures: int, last: Attempt) -> None:
        """See `SinkTransitions.failing`."""
        self._outbox.add(
            notice.failing(
                subscription.consumer_id,
                subscription.id,
                subscription.settings.sink_revision,
                since_ms=since_ms,
                now_ms=unix_ms(self._clock),
                failures=failures,
                last=last,
            )
        )

    def recovered(self, subscription: Subscription, failing_since_ms: int) -> None:
        """See `SinkTransitions.recovered`."""
        sink_revision, now_ms = subscription.settings.sink_revision, unix_ms(self._clock)
        self._outbox.add(
            notice.recovered(subscription.consumer_id, subscription.id, sink_revision, failing_since_ms=failing_since_ms, now_ms=now_ms)
        )

    def failed_too_long(self, subscription: Subscription, since_ms: int, last: Attempt) -> None:
        """See `SinkTransitions.failed_too_long`."""
        reason = (
            f"Every attempt has failed since {notice.time_text(since_ms)}; the last one: {notice.failure_text(last)}. "
            "Set another sink, or resume the subscription."
        )
        self._disable_reports.report(subscription.id, subscription.settings.sink_revision, reason)

    def disabled(self, subscription: Subscription, *, is_news: bool) -> None:
        """Note that a subscription is disabled; `is_news`: this worker knew it before as not disabled.

        After a start nobody knows whether the notice was published before. Within a day, the log knows it.
        """
        if subscription.disabled is None:
            return
        since_ms, reason = subscription.disabled
        if is_news or unix_ms(self._clock) - since_ms < _KNOWN_TO_LOG_MS:
            sink_revision = subscription.settings.sink_revision
            self._outbox.add(notice.disabled(subscription.consumer_id, subscription.id, sink_revision, since_ms=since_ms, reason=reason))

    def raise_expiring(self, subscription: Subscription, at: str, *, waiting_since_ms: int, expires_ms: int) -> None:
        """Note that the log will soon drop events that wait for a subscription.

        `at` names where the waiting events begin: the same place makes one notice. `waiting_since_ms` is when the oldest of them was
        accepted, and `expires_ms` when it will be dropped, in ms since 1970.
        """
        now_ms = unix_ms(self._clock)
        self._outbox.add(
            notice.expiring(
                subscription.consumer_id, subscription.id, at, waiting_since_ms=waiting_since_ms, expires_ms=expires_ms, now_ms=now_ms
            )
        )
