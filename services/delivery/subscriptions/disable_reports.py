"""Disable reports: asks the registry to disable subscriptions whose sinks are gone (410), or have failed for too long.

dispatcher → transition_reports → [disable_reports: retry_queue] → registry_client ─gRPC─▶ registry ─Watch─▶ replica

Law 1: each report names the sink that failed. If the subscription has another sink by now, the registry does not disable it.
Law 2: a report is repeated until the registry has answered. Several reports are under way at once, and consumers take turns.
"""

from collections.abc import Callable
from typing import Never

from services.delivery.request.request_settings import Subscription
from services.delivery.subscriptions.registry_client import RegistryClient
from services.runtime.errors import Failure, Reason
from services.runtime.fair_semaphore import Share
from services.runtime.logs import logger
from services.runtime.retry_queue import RetryQueue

GONE_REASON = "The sink answered 410 Gone; set another sink, or resume the subscription."
REPORTS_AT_ONCE = Share(permits=16, owner_permits=4)
# A report that finds no room is dropped: the sink is sent to once an hour at least, fails again, and is reported again.
_REPORTS_MAX = 100_000
_REASON_CHARS_MAX = 500
_RETRY_FIRST_S = 0.2
_RETRY_MAX_S = 5.0
_SETTLED = frozenset({Reason.ETAG_MISMATCH, Reason.SUBSCRIPTION_NOT_FOUND})


class DisableReports:
    """The subscriptions that are to be disabled and that the registry has not heard about yet."""

    def __init__(self, registry: RegistryClient, subscription: Callable[[str], Subscription | None]) -> None:
        """`subscription` returns a subscription by its id."""
        self._registry = registry
        self._subscription = subscription
        self._reports = RetryQueue[tuple[str, int]](
            self._report, REPORTS_AT_ONCE, keys_max=_REPORTS_MAX, retry_first_s=_RETRY_FIRST_S, retry_max_s=_RETRY_MAX_S
        )
        self._reasons: dict[tuple[str, int], str] = {}
        """By the keys of the queue."""

    def report(self, subscription_id: str, sink_revision: int, reason: str) -> None:
        """Report a sink soon, by its revision, and why its subscription is to be disabled: a sentence for its owner."""
        subscription, key = self._subscription(subscription_id), (subscription_id, sink_revision)
        if subscription is None:
            return
        if self._reports.put(key, subscription.consumer_id):
            self._reasons.setdefault(key, reason[:_REASON_CHARS_MAX])
        else:
            logger().warning("disable_report.dropped", subscription=subscription_id, reports_max=_REPORTS_MAX)

    async def run(self) -> Never:
        """Report to the registry until cancelled."""
        await self._reports.run()

    async def _report(self, sink: tuple[str, int]) -> bool:
        """Report one sink; return whether the registry has answered, be it that the sink or subscription is no longer there."""
        subscription_id, sink_revision = sink
        try:
            await self._registry.disable(subscription_id, sink_revision, self._reasons[sink])
        except Failure as failure:
            if failure.reason not in _SETTLED:
                logger().warning("disable_report.failed", subscription=subscription_id, reason=failure.reason.name)
                return False
        else:
            logger().info("subscription.disabled", subscription=subscription_id)
        del self._reasons[sink]
        return True
