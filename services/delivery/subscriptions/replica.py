"""Replica: delivery's own copy of all subscriptions, kept up to date by watching the registry.

registry ─Watch─▶ registry_client → [replica] → router

Law 1: a snapshot is built aside and replaces the old one only when it is complete.
Law 2: the replica knows which revision it has reached, so that routing can wait for a revision.
Law 3: the watch resumes only from a change that the registry still has, found by the change's id. If the registry has another history,
the replica takes a new snapshot.
Law 4: if the secrets of a subscription cannot be read, its events are kept and not sent; the other subscriptions go on.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from typing import Never

from services.delivery.model import Health
from services.delivery.request.request_settings import Subscription
from services.delivery.subscriptions.registry_client import FROM_THE_START, Checkpoint, Deleted, Put, RegistryClient
from services.delivery.subscriptions.revision_client import LeasedRevision, RevisionClient
from services.delivery.subscriptions.router import Router
from services.runtime.errors import Failure, Reason
from services.runtime.logs import logger

_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 2.0


class Replica:
    """All subscriptions, as of a revision."""

    def __init__(self, registry: RegistryClient, revisions: RevisionClient) -> None:
        """Start without subscriptions; the replica closes `revisions` when `run` ends."""
        self._registry = registry
        self._revisions = revisions
        self._changed: Callable[[str], None] = _nobody
        self._gone: Callable[[str], None] = _nobody
        self._unverified: Callable[[str, str], None] = _nobody_verifies
        self._progress: Callable[[], None] = _nothing
        self._lost: Callable[[], None] = _nothing
        self.router = Router()
        self.revision = 0
        self._reached = FROM_THE_START
        self._anew = False
        self._advanced = asyncio.Event()

    def listen(self, *, changed: Callable[[str], None], gone: Callable[[str], None]) -> None:
        """Set the callbacks for the ids of subscriptions that are new or changed, and of those that are deleted or off."""
        self._changed, self._gone = changed, gone

    def listen_for_unverified(self, unverified: Callable[[str, str], None]) -> None:
        """Set the callback for sinks that are to be asked for their consent: it gets the ids of the subscription and its consumer."""
        self._unverified = unverified

    def listen_for_progress(self, *, advanced: Callable[[], None], lost: Callable[[], None]) -> None:
        """Set the callbacks for a checkpoint that was reached, and for a watch that has ended."""
        self._progress, self._lost = advanced, lost

    @property
    def complete(self) -> bool:
        """Whether a whole snapshot has been taken."""
        return self.revision > 0

    def get(self, subscription_id: str) -> Subscription | None:
        """Return a subscription, None if it does not exist."""
        return self.router.by_id.get(subscription_id)

    def wanted(self, subscription_id: str) -> bool:
        """Return whether events may still be delivered to a subscription; before the first snapshot, True."""
        subscription = self.router.get(subscription_id)
        return not self.complete or (subscription is not None and subscription.health is not Health.OFF)

    async def ask_revision(self) -> LeasedRevision:
        """Ask the registry for its revision, one caller at a time; raises `RegistryAwayError` if it does not answer."""
        return await self._revisions.ask(self._reached.revision, self._reached.change_id)

    async def confirm(self) -> None:
        """Tell the registry which revision was reached; never call it during `ask_revision`."""
        await self._revisions.confirm(self.revision)

    async def reached(self, revision: int) -> None:
        """Wait until the replica is complete and has reached a revision."""
        while self.revision < revision:
            self._advanced.clear()
            await self._advanced.wait()

    async def run(self) -> None:
        """Watch until cancelled; after the watch is lost, resume from the last checkpoint."""
        try:
            await self._watch_on()
        finally:
            self._revisions.close()

    async def _watch_on(self) -> Never:
        backoff_s = _BACKOFF_FIRST_S
        while True:
            revision = self.revision
            try:
                await self._watch()
            except Failure as failure:
                if failure.reason is Reason.REVISION_COMPACTED:
                    logger().warning("replica.resnapshot", revision=self.revision)
                    self._anew = True
                    continue
                backoff_s = _BACKOFF_FIRST_S if self.revision > revision else min(backoff_s * 2, _BACKOFF_MAX_S)
                logger().warning("replica.watch_lost", reason=failure.reason.name, retry_s=backoff_s)
            await asyncio.sleep(backoff_s * (0.5 + random.random()))  # noqa: S311 - jitter

    async def _watch(self) -> None:
        # Resume only with a change id: the revision alone would not show that the registry has another history.
        resumes = self._reached.change_id and not self._anew
        aside = None if resumes else Router()
        try:
            async with contextlib.aclosing(self._registry.watch(self._reached if resumes else FROM_THE_START)) as items:
                async for item in items:
                    match item:
                        case Put(subscription, verification_wanted):
                            self._put(subscription, aside)
                            if verification_wanted:
                                self._unverified(subscription.id, subscription.consumer_id)
                        case Deleted(subscription_id):
                            self._delete(subscription_id, aside)
                        case Checkpoint():
                            if aside is not None:
                                self._swap(aside)
                                aside = None
                            self._reached, self._anew = item, False
                            self.revision = item.revision
                            self._advanced.set()
                            self._progress()
        finally:
            self._lost()

    def _put(self, subscription: Subscription, aside: Router | None) -> None:
        if aside is not None:
            aside.put(subscription)
            return
        self.router.put(subscription)
        (self._gone if subscription.health is Health.OFF else self._changed)(subscription.id)

    def _delete(self, subscription_id: str, aside: Router | None) -> None:
        if aside is not None:
            aside.remove(subscription_id)
        elif self.router.remove(subscription_id) is not None:
            self._gone(subscription_id)

    def _swap(self, fresh: Router) -> None:
        before, self.router = self.router, fresh
        for subscription_id in _ids(before) - _ids(fresh):
            self._gone(subscription_id)
        for subscription in fresh:
            if before.get(subscription.id) != subscription:
                (self._gone if subscription.health is Health.OFF else self._changed)(subscription.id)


def _nobody(subscription_id: str) -> None:
    """Stand in until `listen` is called."""


def _nobody_verifies(subscription_id: str, consumer_id: str) -> None:
    """Stand in until `listen_for_unverified` is called."""


def _nothing() -> None:
    """Stand in until `listen_for_progress` is called."""


def _ids(subscriptions: Iterable[Subscription]) -> set[str]:
    return {subscription.id for subscription in subscriptions}
