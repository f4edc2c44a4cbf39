"""Verification queue: verifies sinks without a call from outside, if the operator's settings ask for that.

registry ─Watch─▶ replica → [verification_queue] → sink_verification → sink

Law 1: nothing waits for this queue. A sink is asked by one call at a time, and events are sent to it meanwhile.
Law 2: consumers take turns, and each has at most its share: sinks that do not answer delay only other sinks of their consumer.
"""

import asyncio

from services.delivery.sinks.sink_verification import SinkVerifier
from services.runtime.consumer_scope import EVERYONE
from services.runtime.errors import Failure, Reason
from services.runtime.fair_semaphore import FairSemaphore, Place, ShareNow
from services.runtime.logs import logger

_AGAIN_S = 5.0
_WAITING_HELPS = frozenset({Reason.UNAVAILABLE, Reason.DEADLINE_EXCEEDED, Reason.STORAGE_FULL})
# More than any consumer has subscriptions; each subscription waits at most once.
_OWNER_WAITING_MAX = 10_000_000


class Asker:
    """Asks a few sinks at once: as many as `share` permits, in all and for one consumer."""

    def __init__(self, verifier: SinkVerifier, share: ShareNow) -> None:
        self._verifier = verifier
        self._permits = FairSemaphore(share, owner_waiting_max=_OWNER_WAITING_MAX)
        self._permitted: asyncio.Queue[tuple[str, Place]] = asyncio.Queue()
        """The subscriptions that hold a permit; the others wait in the semaphore."""
        self._known: set[str] = set()

    def want(self, subscription_id: str, consumer_id: str) -> None:
        """Queue the sink of a consumer's subscription, unless it is queued or being asked already."""
        if subscription_id not in self._known:
            self._known.add(subscription_id)
            self._queue(subscription_id, consumer_id)

    async def run(self) -> None:
        """Ask until cancelled.

        A call that fails with UNAVAILABLE, DEADLINE_EXCEEDED or STORAGE_FULL is repeated after 5 s. After any other failure, the sink is
        asked again when its subscription next changes.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                subscription_id, place = await self._permitted.get()
                group.create_task(self._ask(subscription_id, place))

    def _queue(self, subscription_id: str, consumer_id: str) -> None:
        self._permits.enter(consumer_id, lambda place: self._permitted.put_nowait((subscription_id, place)))

    async def _ask(self, subscription_id: str, place: Place) -> None:
        try:
            await self._verifier.ask(EVERYONE, subscription_id)
        except Failure as failure:
            logger().warning("consent.not_asked", subscription=subscription_id, reason=failure.reason.name)
            if failure.reason in _WAITING_HELPS:
                await asyncio.sleep(_AGAIN_S)
                self._queue(subscription_id, place.owner)
                return
        finally:
            place.leave()
        self._known.discard(subscription_id)
