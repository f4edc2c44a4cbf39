"""Ask: has sinks asked for their consent that nobody has called for, where the operator wants that.

registry ─Watch─▶ replica → [ask] → verify → sink

Law 1: it holds up nothing; a sink is asked by one call at a time, and events are sent to it meanwhile.
Law 2: consumers take turns, and one has no more than its share: sinks that do not answer keep only their own consumer's others waiting.
"""

import asyncio

from services.delivery.sinks.sink_verification import Verifier
from services.runtime.errors import Failure, Reason
from services.runtime.fair_semaphore import FairSemaphore, Place, ShareNow
from services.runtime.logs import logger

_AGAIN_S = 5.0
_EVERYONE = "*"
_WAITING_HELPS = frozenset({Reason.UNAVAILABLE, Reason.DEADLINE_EXCEEDED, Reason.STORAGE_FULL})
# More than a consumer has subscriptions, each of which waits once.
_OWNER_WAITING_MAX = 10_000_000


class Asker:
    """Asks, a few sinks at once: as many as `share` permits, in all and of one consumer."""

    def __init__(self, verifier: Verifier, share: ShareNow) -> None:
        self._verifier = verifier
        self._permits = FairSemaphore(share, owner_waiting_max=_OWNER_WAITING_MAX)
        self._permitted: asyncio.Queue[tuple[str, Place]] = asyncio.Queue()
        """What holds a permit; the others wait in the semaphore."""
        self._known: set[str] = set()

    def want(self, subscription_id: str, consumer_id: str) -> None:
        """Note that the sink of a consumer's subscription is to be asked."""
        if subscription_id not in self._known:
            self._known.add(subscription_id)
            self._queue(subscription_id, consumer_id)

    async def run(self) -> None:
        """Ask for ever. What fails for another reason than an absence is wanted again by the subscription's next change."""
        async with asyncio.TaskGroup() as group:
            while True:
                subscription_id, place = await self._permitted.get()
                group.create_task(self._ask(subscription_id, place))

    def _queue(self, subscription_id: str, consumer_id: str) -> None:
        self._permits.enter(consumer_id, lambda place: self._permitted.put_nowait((subscription_id, place)))

    async def _ask(self, subscription_id: str, place: Place) -> None:
        try:
            await self._verifier.ask(_EVERYONE, subscription_id)
        except Failure as failure:
            logger().warning("consent.not_asked", subscription=subscription_id, reason=failure.reason.name)
            if failure.reason in _WAITING_HELPS:
                await asyncio.sleep(_AGAIN_S)
                self._queue(subscription_id, place.owner)
                return
        finally:
            place.leave()
        self._known.discard(subscription_id)
