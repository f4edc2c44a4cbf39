"""Fair share: how many requests of one owner are worked on at once, so that no consumer's slow calls take the room of the others'.

pipeline → [fair_share] → route

Law 1: an owner's requests beyond its share wait for their turn, in order, for a bounded time and up to a bounded number.
Law 2: nobody waits for another owner's requests.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.runtime.errors import Failure, Reason

WAIT_S = 10.0


@dataclass(slots=True)
class _Owner:
    """The turns of one owner, and how many requests have or await one."""

    turns: asyncio.Semaphore
    requests: int = 0


class FairShare:
    """Hands out turns to work on a request."""

    def __init__(self, each_max: int, *, waiting_max: int, wait_s: float = WAIT_S) -> None:
        """Let each owner have `each_max` turns at once; `waiting_max` more requests wait, up to `wait_s` seconds each."""
        self._each_max = each_max
        self._waiting_max = waiting_max
        self._wait_s = wait_s
        self._owners: dict[str, _Owner] = {}

    @contextlib.asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the length of a block; raise `Failure` OVERLOADED if it does not come."""
        entry = self._owners.setdefault(owner, _Owner(asyncio.Semaphore(self._each_max)))
        if entry.requests >= self._each_max + self._waiting_max:
            raise _overloaded()
        entry.requests += 1
        try:
            await self._acquired(entry.turns)
            try:
                yield
            finally:
                entry.turns.release()
        finally:
            entry.requests -= 1
            if not entry.requests:
                del self._owners[owner]

    async def _acquired(self, turns: asyncio.Semaphore) -> None:
        if not turns.locked():
            await turns.acquire()
            return
        try:
            async with asyncio.timeout(self._wait_s):
                await turns.acquire()
        except TimeoutError:
            raise _overloaded() from None


def _overloaded() -> Failure:
    return Failure(Reason.OVERLOADED, "Too many requests of yours are under way; send this one again once some are answered.")
