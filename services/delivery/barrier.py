"""Barrier: a batch is routed only with subscriptions as new as the batch.

event log → [barrier] → route

Law: a batch passes once the replica has reached the registry's revision as returned by a call that
began after the batch was read. Hence an event acknowledged after a subscription's 201 reaches it, and
one acknowledged after its 204 does not. One call serves all who wait when it begins.
"""

import asyncio

from services.delivery.errors import RegistryAwayError
from services.delivery.replica import Replica
from services.runtime.logs import logger

_RETRY_S = 0.2


class Barrier:
    """Lets batches pass."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._waiting: list[asyncio.Future[None]] = []
        self._asked = asyncio.Event()

    async def passed(self) -> None:
        """Wait until the replica is new enough for what was read before this call."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._asked.set()
        await future

    async def run(self) -> None:
        """Serve for ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            waiting, self._waiting = self._waiting, []
            await self._replica.reached(await self._revision())
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def _revision(self) -> int:
        away = False
        while True:
            try:
                revision = await self._replica.current_revision()
            except RegistryAwayError as error:
                if not away:
                    logger().warning("registry.away", reason=str(error), effect="new events wait in the log")
                away = True
                await asyncio.sleep(_RETRY_S)
            else:
                if away:
                    logger().info("registry.back")
                return revision
