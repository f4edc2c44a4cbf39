"""Verification queue: verifies sinks without a call from outside, if the operator's settings ask for that.

registry ─Watch─▶ registry_watch → [verification_queue: retry_queue] → sink_verification → sink

Law 1: nothing waits for this queue. A sink is asked by one call at a time, and events are sent to it meanwhile.
Law 2: consumers take turns, and each has at most its share: sinks that do not answer delay only other sinks of their consumer.
"""

from typing import Never

from services.delivery.sinks.sink_verification import SinkVerifier
from services.runtime.consumer_scope import EVERYONE
from services.runtime.errors import Failure, Reason
from services.runtime.fair_semaphore import ShareNow
from services.runtime.logs import logger
from services.runtime.retry_queue import RetryQueue

_RETRY_S = 5.0
_WAITING_HELPS = frozenset({Reason.UNAVAILABLE, Reason.DEADLINE_EXCEEDED, Reason.STORAGE_FULL})
# A sink that finds no room is asked when its subscription next changes, or after the service's next start.
_SINKS_MAX = 1_000_000


class VerificationQueue:
    """The sinks to verify; as many at once as `share` permits, in all and for one consumer."""

    def __init__(self, verifier: SinkVerifier, share: ShareNow) -> None:
        self._verifier = verifier
        self._sinks = RetryQueue[str](self._verify, share, keys_max=_SINKS_MAX, retry_first_s=_RETRY_S, retry_max_s=_RETRY_S)

    def put(self, subscription_id: str, consumer_id: str) -> None:
        """Queue the sink of a consumer's subscription, unless it is queued or being asked already."""
        if not self._sinks.put(subscription_id, consumer_id):
            logger().warning("verification.dropped", subscription=subscription_id, sinks_max=_SINKS_MAX)

    async def run(self) -> Never:
        """Verify until cancelled.

        A call that fails with UNAVAILABLE, DEADLINE_EXCEEDED or STORAGE_FULL is repeated after 5 s. After any other failure, the sink is
        asked again when its subscription next changes.
        """
        await self._sinks.run()

    async def _verify(self, subscription_id: str) -> bool:
        try:
            await self._verifier.ask(EVERYONE, subscription_id)
        except Failure as failure:
            logger().warning("verification.failed", subscription=subscription_id, reason=failure.reason.name)
            return failure.reason not in _WAITING_HELPS
        return True
