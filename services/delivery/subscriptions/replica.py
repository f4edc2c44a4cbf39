"""Replica: delivery's own copy of all subscriptions, and the revision that it has reached.

registry_watch → [replica: router] → read_barrier, log_follower, dispatcher

Law 1: a snapshot is built aside and replaces the old one only when it is complete.
Law 2: the replica knows which revision it has reached, and whether the system is paused, so that routing can wait for both.
Law 3: a subscription is active if its own status says so and its consumer is not paused. A pause of a consumer changes no subscription,
so that it takes effect at once, however many subscriptions the consumer has.
"""

import asyncio

from services.delivery.model import SubscriptionStatus
from services.delivery.request.request_settings import Subscription
from services.delivery.subscriptions.registry_client import FROM_THE_START, Checkpoint
from services.delivery.subscriptions.router import Router


class Snapshot:
    """All subscriptions and pauses of consumers at one moment, while they arrive."""

    def __init__(self) -> None:
        """Start empty."""
        self.router = Router()
        self.paused_consumers: set[str] = set()


class Replica:
    """All subscriptions, as of a checkpoint. Only the registry watch changes it."""

    def __init__(self) -> None:
        """Start without subscriptions."""
        self.router = Router()
        self.checkpoint = FROM_THE_START
        """The latest checkpoint of the watch; `FROM_THE_START` before the first snapshot is complete."""
        self.paused_consumers: set[str] = set()
        """The ids of the consumers that are paused; callers only read it."""
        self._advanced = asyncio.Event()

    @property
    def revision(self) -> int:
        """The revision that was reached; 0 before the first snapshot is complete."""
        return self.checkpoint.revision

    @property
    def complete(self) -> bool:
        """Whether a whole snapshot has been taken."""
        return self.checkpoint.revision > 0

    @property
    def system_paused(self) -> bool:
        """Whether the operator has paused all deliveries: no event is routed, and no attempt starts."""
        return self.checkpoint.system_paused

    def get(self, subscription_id: str) -> Subscription | None:
        """Return a subscription, None if it does not exist."""
        return self.router.by_id.get(subscription_id)

    def active(self, subscription_id: str) -> Subscription | None:
        """Return a subscription to which events may be sent now: it is active, and its consumer is not paused. None if it is not."""
        subscription = self.router.by_id.get(subscription_id)
        if subscription is None or subscription.status is not SubscriptionStatus.ACTIVE:
            return None
        return None if subscription.consumer_id in self.paused_consumers else subscription

    def is_consumer_paused(self, consumer_id: str) -> bool:
        """Return whether the operator has paused a consumer."""
        return consumer_id in self.paused_consumers

    def wanted(self, subscription_id: str) -> bool:
        """Return whether events may still be delivered to a subscription; before the first snapshot, True."""
        subscription = self.router.by_id.get(subscription_id)
        return not self.complete or (subscription is not None and subscription.status is not SubscriptionStatus.OFF)

    async def reached(self, revision: int) -> None:
        """Wait until the replica is complete and has reached a revision."""
        while self.checkpoint.revision < revision:
            self._advanced.clear()
            await self._advanced.wait()

    async def unpaused(self) -> None:
        """Wait until the system is not paused."""
        while self.checkpoint.system_paused:
            self._advanced.clear()
            await self._advanced.wait()

    def advance(self, checkpoint: Checkpoint, snapshot: Snapshot | None = None) -> None:
        """Note that a checkpoint is reached; if a snapshot is complete with it, take the snapshot's subscriptions and pauses."""
        if snapshot is not None:
            snapshot.router.follow(self.router)
            self.router, self.paused_consumers = snapshot.router, snapshot.paused_consumers
        self.checkpoint = checkpoint
        self._advanced.set()
