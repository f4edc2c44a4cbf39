"""Read barrier: a batch is routed only with subscriptions as new as the batch.

event log → read_ahead → [read_barrier] → log_follower: router

Law 1: a batch passes once the replica has reached the registry's revision, as returned by a call that began after the batch was
read. While a read lease runs, the batch passes at once. Either way the replica has every change that anyone had heard of before.
Hence an event acknowledged after a subscription's 201 reaches the subscription, and an event acknowledged after its 204 does not.
Law 2: one call serves all batches that wait when it begins. If this process stands still during the call, they wait for another call.
"""

import asyncio
from typing import Never

from services.delivery.errors import RegistryAwayError
from services.delivery.subscriptions.freshness import Freshness
from services.delivery.subscriptions.replica import Replica
from services.delivery.subscriptions.revision_client import LeasedRevision, RevisionClient
from services.runtime.clock import Clock
from services.runtime.logs import logger

_RETRY_S = 0.2
# The registry may be away this long, enough for a restart, before readiness reports it.
_AWAY_S = 3.0


class ReadBarrier:
    """Holds batches back until the replica is new enough."""

    def __init__(self, replica: Replica, revisions: RevisionClient, clock: Clock, freshness: Freshness) -> None:
        """The barrier closes `revisions` when `run` ends."""
        self._replica = replica
        self._revisions = revisions
        self._freshness = freshness
        self._clock = clock
        self._waiting: list[asyncio.Future[None]] = []
        self._wanted = asyncio.Event()
        self._answer = LeasedRevision(0, 0.0)
        self._confirmed = 0
        self._away_since: float | None = None

    def why_not_passing(self) -> str | None:
        """Return in a sentence why no batch passes; None if batches pass, or if the registry is away for less than `_AWAY_S`."""
        if self._away_since is None or self._clock.monotonic() - self._away_since < _AWAY_S:
            return None
        return "the subscription service is unavailable: new events wait in the log"

    async def passed(self) -> None:
        """Wait until the replica is new enough for the events that were read before this call."""
        if self._lease_runs() and self._replica.revision >= self._answer.revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wanted.set()
        await future

    def holds(self) -> bool:
        """Return whether a batch that has passed may still be routed: not after this process stood still, until the next proof."""
        return self._freshness.holds()

    def prove(self) -> None:
        """Ask the registry soon, even if no batch waits, because this process stood still."""
        self._wanted.set()

    async def run(self) -> Never:
        """Let waiting batches pass, and confirm revisions, until cancelled."""
        try:
            await self._let_pass()
        finally:
            self._revisions.close()

    async def _let_pass(self) -> Never:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            if waiting or not self._freshness.holds():
                gaps = self._freshness.gaps()
                self._answer = await self._ask()
                await self._replica.reached(self._answer.revision)
                if not self._freshness.prove(gaps):
                    self._waiting += waiting
                    self._wanted.set()
                    continue
                for future in waiting:
                    if not future.done():
                        future.set_result(None)
            elif self._replica.revision > self._confirmed:
                self._confirmed = self._replica.revision
                await self._revisions.confirm(self._confirmed)

    def _lease_runs(self) -> bool:
        return self._clock.boottime() < self._answer.lease_until

    def advanced(self) -> None:
        """See `WatchProgress.advanced`. Have the new revision confirmed while a lease runs: the registry may be waiting for that."""
        if self._lease_runs():
            self._wanted.set()

    def lost(self) -> None:
        """See `WatchProgress.lost`. End the lease here while no changes arrive."""
        self._answer = LeasedRevision(0, 0.0)

    async def _ask(self) -> LeasedRevision:
        while True:
            try:
                reached = self._replica.checkpoint
                self._confirmed = reached.revision
                answer = await self._revisions.ask(reached.revision, reached.change_id)
            except RegistryAwayError as error:
                if self._away_since is None:
                    self._away_since = self._clock.monotonic()
                    logger().warning("registry.unreachable", reason=str(error), effect="new events wait in the log")
                await asyncio.sleep(_RETRY_S)
            else:
                if self._away_since is not None:
                    self._away_since = None
                    logger().info("registry.reached")
                return answer
