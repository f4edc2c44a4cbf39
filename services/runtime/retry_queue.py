"""Retry queue: runs a job for each of many keys, a few jobs at once, and repeats each job until it is done.

Law 1: a key is in the queue at most once, and the number of keys is bounded.
Law 2: owners take turns, and one owner's jobs hold at most its share of the permits.
Law 3: the wait before a job is repeated doubles with each failure, up to a limit. The job keeps its permit meanwhile, so that a peer
that is away gets few calls; then it goes behind its owner's other keys.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Never, TypeVar

from services.runtime.fair_semaphore import FairSemaphore, PermitRequest, ShareNow

Key = TypeVar("Key", bound=Hashable)


class RetryQueue(Generic[Key]):
    """Keys whose jobs are not done. Belongs to one event loop."""

    def __init__(
        self, job: Callable[[Key], Awaitable[bool]], share: ShareNow, *, keys_max: int, retry_first_s: float, retry_max_s: float
    ) -> None:
        """`job` returns whether it is done; an exception ends `run`. `share` bounds the jobs under way, in all and for one owner."""
        self._job = job
        self._keys_max = keys_max
        self._retry_first_s = retry_first_s
        self._retry_max_s = retry_max_s
        self._permits = FairSemaphore(share, owner_waiting_max=keys_max)
        self._permitted: asyncio.Queue[tuple[Key, PermitRequest]] = asyncio.Queue(keys_max)
        """The keys that hold a permit and have not started; the others wait in the semaphore."""
        self._failures: dict[Key, int] = {}
        """How often the job of each key in the queue has failed."""

    def __len__(self) -> int:
        """Return how many keys are in the queue, under way or not."""
        return len(self._failures)

    def put(self, key: Key, owner: str) -> bool:
        """Queue a key, unless it is in the queue already; return False, and drop the key, if the queue is full."""
        if key in self._failures:
            return True
        if len(self._failures) >= self._keys_max:
            return False
        self._failures[key] = 0
        self._enter(key, owner)
        return True

    async def run(self) -> Never:
        """Run jobs until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                key, permit_request = await self._permitted.get()
                group.create_task(self._run(key, permit_request))

    def _enter(self, key: Key, owner: str) -> None:
        self._permits.enter(owner, functools.partial(self._permit, key))

    def _permit(self, key: Key, permit_request: PermitRequest) -> None:
        self._permitted.put_nowait((key, permit_request))

    async def _run(self, key: Key, permit_request: PermitRequest) -> None:
        try:
            if await self._job(key):
                del self._failures[key]
                return
            wait_s = min(self._retry_first_s * 2.0 ** self._failures[key], self._retry_max_s)
            # Bound the exponent, because a job may fail any number of times.
            self._failures[key] = min(self._failures[key] + 1, 30)
            await asyncio.sleep(wait_s)
        finally:
            permit_request.leave()
        self._enter(key, permit_request.owner)
