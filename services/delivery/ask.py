"""Ask: has sinks asked for their consent that nobody has called for, where the operator wants that.

registry ─Watch─▶ replica → [ask] → verify → sink

Law: it holds up nothing; a sink is asked by one call at a time, and events are sent to it meanwhile.
"""

import asyncio

from services.delivery.verify import Verifier
from services.runtime.errors import Failure, Reason
from services.runtime.logs import logger

_AT_ONCE = 8
_AGAIN_S = 5.0
_EVERYONE = "*"
_WAITING_HELPS = frozenset({Reason.UNAVAILABLE, Reason.DEADLINE_EXCEEDED, Reason.STORAGE_FULL})


class Asker:
    """Asks, a few sinks at once."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        # As many as there are subscriptions at most: each stands in it once.
        self._wanted: asyncio.Queue[str] = asyncio.Queue()
        self._known: set[str] = set()

    def want(self, subscription_id: str) -> None:
        """Note that a subscription's sink is to be asked."""
        if subscription_id not in self._known:
            self._known.add(subscription_id)
            self._wanted.put_nowait(subscription_id)

    async def run(self) -> None:
        """Ask for ever. What fails for another reason than an absence is wanted again by the subscription's next change."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._ask())

    async def _ask(self) -> None:
        while True:
            subscription_id = await self._wanted.get()
            try:
                await self._verifier.verify(_EVERYONE, subscription_id)
            except Failure as failure:
                logger().warning("consent.not_asked", subscription=subscription_id, reason=failure.reason.name)
                if failure.reason in _WAITING_HELPS:
                    self._wanted.put_nowait(subscription_id)
                    await asyncio.sleep(_AGAIN_S)
                    continue
            self._known.discard(subscription_id)
