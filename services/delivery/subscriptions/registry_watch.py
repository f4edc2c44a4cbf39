"""Registry watch: keeps the replica up to date, and tells which subscriptions have changed.

registry ─Watch─▶ registry_client → [registry_watch] → replica; dispatcher, consumer_pauses, lane_refill, verification_queue, read_barrier

Law 1: the watch resumes only from a change that the registry still has, found by the change's id. If the registry has another history,
the replica takes a new snapshot.
Law 2: if the secrets of a subscription cannot be read, its events are kept and not sent; the other subscriptions go on.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Never, Protocol

from services.delivery.model import SubscriptionStatus
from services.delivery.request.request_settings import Subscription
from services.delivery.subscriptions.registry_client import FROM_THE_START, Checkpoint, ConsumerPause, Deleted, Put, RegistryClient
from services.delivery.subscriptions.replica import Replica, Snapshot
from services.runtime.errors import Failure, Reason
from services.runtime.logs import logger

_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 2.0


class WatchProgress(Protocol):
    """Takes notice of how far the watch is."""

    def advanced(self) -> None:
        """Note that the replica has reached a checkpoint."""

    def lost(self) -> None:
        """Note that the watch has ended, so that no changes arrive."""


class RegistryWatch:
    """A watch that is resumed whenever it ends."""

    def __init__(
        self,
        registry: RegistryClient,
        replica: Replica,
        progress: WatchProgress,
        *,
        changed: Callable[[str], None],
        unwanted: Callable[[str], None],
        disabled: Callable[[Subscription, bool], None],
        unverified: Callable[[str, str], None],
        paused: Callable[[str, bool], None],
    ) -> None:
        """`changed` gets the ids of subscriptions that are new or changed, and `unwanted` of those that are deleted or off.

        `disabled` gets each subscription that is disabled and was not known as such, and whether it was known at all.
        `unverified` gets the ids of a subscription whose sink must be verified, and of its consumer. `paused` is called when the operator
        pauses (True) or resumes (False) a consumer, by its id, or all deliveries (""), right after the replica knows it.
        """
        self._registry = registry
        self._replica = replica
        self._progress = progress
        self._changed, self._unwanted, self._unverified, self._paused = changed, unwanted, unverified, paused
        self._disabled = disabled
        self._needs_snapshot = False

    async def run(self) -> Never:
        """Watch until cancelled; after the watch is lost, resume from the last checkpoint."""
        backoff_s = _BACKOFF_FIRST_S
        while True:
            revision = self._replica.revision
            try:
                await self._watch()
            except Failure as failure:
                if failure.reason is Reason.REVISION_COMPACTED:
                    logger().warning("replica.snapshot_requested", revision=self._replica.revision)
                    self._needs_snapshot = True
                    continue
                backoff_s = _BACKOFF_FIRST_S if self._replica.revision > revision else min(backoff_s * 2, _BACKOFF_MAX_S)
                logger().warning("registry.disconnected", reason=failure.reason.name, retry_s=backoff_s)
            await asyncio.sleep(backoff_s * (0.5 + random.random()))  # noqa: S311 - jitter

    async def _watch(self) -> None:
        # Resume only with a change id: the revision alone would not show that the registry has another history.
        after = self._replica.checkpoint
        if self._needs_snapshot or not after.change_id:
            after = FROM_THE_START
        snapshot = Snapshot() if after is FROM_THE_START else None
        try:
            async with contextlib.aclosing(self._registry.watch(after)) as items:
                async for item in items:
                    match item:
                        case Put(subscription, verification_wanted):
                            self._put(subscription, snapshot)
                            if verification_wanted:
                                self._unverified(subscription.id, subscription.consumer_id)
                        case Deleted(subscription_id):
                            self._delete(subscription_id, snapshot)
                        case ConsumerPause(consumer_id, paused):
                            self._pause(consumer_id, snapshot, paused=paused)
                        case Checkpoint():
                            self._reach(item, snapshot)
                            snapshot = None
        finally:
            self._progress.lost()

    def _put(self, subscription: Subscription, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            snapshot.router.put(subscription)
            return
        before = self._replica.get(subscription.id)
        self._replica.router.put(subscription)
        self._tell(subscription, before)

    def _delete(self, subscription_id: str, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            snapshot.router.remove(subscription_id)
        elif self._replica.router.remove(subscription_id) is not None:
            self._unwanted(subscription_id)

    def _pause(self, consumer_id: str, snapshot: Snapshot | None, *, paused: bool) -> None:
        consumers = self._replica.paused_consumers if snapshot is None else snapshot.paused_consumers
        if paused is (consumer_id in consumers):
            return
        (consumers.add if paused else consumers.discard)(consumer_id)
        if snapshot is None:
            self._paused(consumer_id, paused)

    def _reach(self, checkpoint: Checkpoint, snapshot: Snapshot | None) -> None:
        before, was_paused, paused_before = self._replica.router.by_id, self._replica.system_paused, self._replica.paused_consumers
        self._replica.advance(checkpoint, snapshot)
        if checkpoint.system_paused != was_paused:
            self._paused("", checkpoint.system_paused)
        self._needs_snapshot = False
        if snapshot is not None:
            for consumer_id in snapshot.paused_consumers - paused_before:
                self._paused(consumer_id, True)  # noqa: FBT003 - as the watch's owner takes it
            for subscription_id in before.keys() - snapshot.router.by_id.keys():
                self._unwanted(subscription_id)
            for subscription in snapshot.router.by_id.values():
                if before.get(subscription.id) != subscription:
                    self._tell(subscription, before.get(subscription.id))
            for consumer_id in paused_before - snapshot.paused_consumers:
                self._paused(consumer_id, False)  # noqa: FBT003 - the same
        self._progress.advanced()

    def _tell(self, subscription: Subscription, before: Subscription | None) -> None:
        if subscription.disabled is not None and (before is None or before.disabled is None):
            self._disabled(subscription, before is not None)
        (self._unwanted if subscription.status is SubscriptionStatus.OFF else self._changed)(subscription.id)
