"""Watch: streams every change of a subscription, in order, and every pause of a consumer, to the holders of replicas.

subscriptions, consumers → changes → [watch] ─gRPC─▶ delivery's replica

Law 1: a checkpoint is sent only after all changes up to its revision were sent.
Law 2: if the registry cannot send a watcher all changes that it missed, the watch fails, and the watcher begins anew.
"""

import contextlib
from collections.abc import AsyncGenerator, Iterable
from functools import partial

from services.runtime.ids import SLOTS, slot_of
from services.subscription.errors import revision_compacted
from services.subscription.model import (
    Checkpoint,
    ConsumerId,
    ConsumerPause,
    DeletedSubscription,
    PutSubscription,
    ResumePoint,
    SubscriptionId,
    WatchItem,
)
from services.subscription.store.changes import changes_after, is_system_paused, latest_point, paused_part, snapshot_part
from services.subscription.store.store import Store


async def watch(store: Store, after: ResumePoint, registry_id: str, slots: Iterable[int] = ()) -> AsyncGenerator[WatchItem]:
    """Yield the changes after a point, then new changes as they come; with revision 0, the whole state comes first.

    Only changes of subscriptions in `slots` are yielded (empty: all slots), but every pause of a consumer and every checkpoint.

    A watcher that resumes gets a checkpoint at once, even if nothing has changed. Raises REVISION_COMPACTED if the changes after that
    point are no longer kept or its change is not this registry's, and UNAVAILABLE once the registry stops.
    """
    point, wanted = after, frozenset(slots or range(SLOTS))
    if after.revision == 0:
        async with contextlib.aclosing(_snapshot(store)) as items:
            async for item in items:
                if isinstance(item, Checkpoint):
                    point = item.point
                if _is_for(item, wanted):
                    yield item
    elif registry_id != store.registry_id:
        raise revision_compacted()
    has_checkpoint = after.revision == 0
    while True:
        batch = await store.read(partial(changes_after, point=point))
        for item in batch.items:
            if _is_for(item, wanted):
                yield item
        if batch.point.revision > point.revision or not has_checkpoint:
            yield Checkpoint(batch.point, store.registry_id, batch.system_paused)
        point, has_checkpoint = batch.point, True
        await store.wait_beyond(point.revision)


def _is_for(item: WatchItem, slots: frozenset[int]) -> bool:
    match item:
        case PutSubscription(subscription=subscription):
            return slot_of(subscription.id) in slots
        case DeletedSubscription(id=deleted):
            return slot_of(deleted) in slots
        case ConsumerPause() | Checkpoint():
            return True


async def _snapshot(store: Store) -> AsyncGenerator[WatchItem]:
    """Yield the consumers that are paused at one moment, then all subscriptions in their state at that moment, then its checkpoint."""
    async with store.snapshot() as snapshot:
        point = await snapshot.read(latest_point)
        system_paused = await snapshot.read(is_system_paused)
        paused_last = ConsumerId("")
        while True:
            store.check_watching()
            paused = await snapshot.read(partial(paused_part, after_id=paused_last))
            if not paused:
                break
            for pause in paused:
                yield pause
            paused_last = paused[-1].consumer_id
        last = SubscriptionId("")
        while True:
            store.check_watching()
            part = await snapshot.read(partial(snapshot_part, after_id=last))
            if not part:
                break
            for item in part:
                yield item
            last = part[-1].subscription.id
    yield Checkpoint(point, store.registry_id, system_paused)
