"""Gone sinks: reports sinks that have answered 410 Gone to the registry, which disables their subscriptions.

dispatcher → [gone_sinks: retry_queue] → registry_client ─gRPC─▶ registry ─Watch─▶ replica

Law 1: each report names the sink that answered. If the subscription has another sink by now, the registry does not disable it.
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

REASON = "The sink answered 410 Gone; set another sink, or resume the subscription once the sink is back."
REPORTS_AT_ONCE = Share(permits=16, owner_permits=4)
# A report that finds no room is dropped: the sink is sent to once an hour, answers 410 again, and is reported again.
_REPORTS_MAX = 100_000
_RETRY_FIRST_S = 0.2
_RETRY_MAX_S = 5.0
_SETTLED = frozenset({Reason.ETAG_MISMATCH, Reason.SUBSCRIPTION_NOT_FOUND})


class GoneSinks:
    """The sinks that the registry has not heard about yet."""

    def __init__(self, registry: RegistryClient, subscription: Callable[[str], Subscription | None]) -> None:
        """`subscription` returns a subscription by its id."""
        self._registry = registry
        self._subscription = subscription
        self._reports = RetryQueue[tuple[str, int]](
            self._report, REPORTS_AT_ONCE, keys_max=_REPORTS_MAX, retry_first_s=_RETRY_FIRST_S, retry_max_s=_RETRY_MAX_S
        )

    def report(self, subscription_id: str, sink_revision: int) -> None:
        """Report a sink soon; `sink_revision` is the revision of the sink that answered."""
        subscription = self._subscription(subscription_id)
        if subscription is not None and not self._reports.put((subscription_id, sink_revision), subscription.consumer_id):
            logger().warning("gone_report.dropped", subscription=subscription_id, reports_max=_REPORTS_MAX)

    async def run(self) -> Never:
        """Report to the registry until cancelled."""
        await self._reports.run()

    async def _report(self, sink: tuple[str, int]) -> bool:
        """Report one sink; return whether the registry has answered, be it that the sink or subscription is no longer there."""
        subscription_id, sink_revision = sink
        try:
            await self._registry.disable(subscription_id, sink_revision, REASON)
        except Failure as failure:
            if failure.reason in _SETTLED:
                return True
            logger().warning("gone_report.failed", subscription=subscription_id, reason=failure.reason.name)
            return False
        logger().info("subscription.disabled", subscription=subscription_id)
        return True
