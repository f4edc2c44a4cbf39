"""Changes: the history of the subscriptions, from which watches resume.

subscriptions → [changes] → watch

Law 1: the changes of a transaction take the next revisions; with one writer, revisions become visible in order, without gaps.
Law 2: at a checkpoint, the watcher knows every subscription in its state at that revision or a later state, never an earlier one.
Law 3: a damaged secret affects only its own subscription: watches report it as paused instead of active, and all others as usual.
Law 4: every change has a random id; a watch resumes only if the registry still has the last change that the watch has seen.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from secrets import token_hex

import sqlalchemy as sa

from services.runtime.logs import logger
from services.subscription.errors import revision_compacted
from services.subscription.model import DeletedSubscription, PutSubscription, ResumePoint, State, Subscription, SubscriptionId
from services.subscription.store import credentials as store_credentials
from services.subscription.store import secrets as store_secrets
from services.subscription.store.rows import SUBSCRIPTION_ROWS, subscription_from
from services.subscription.store.schema import changes, registry, subscriptions
from services.subscription.store.transaction import Reading, Row, Writing
from services.subscription.store.vault import UnsealError

# Reading a batch takes about 10 ms; other reads may have to wait that long.
BATCH_MAX = 200
_COMPACTED_MAX = 100
_CHANGE_ID_BYTES = 16


class ChangeKind(Enum):
    """The kind of a change."""

    PUT = "put"
    DELETED = "deleted"
    SYSTEM = "system"
    """Deliveries were paused or resumed; a checkpoint tells which."""


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Some changes, folded into the latest state of each subscription. After this batch, all changes up to `point` are delivered."""

    items: tuple[PutSubscription | DeletedSubscription, ...]
    point: ResumePoint
    system_paused: bool


def record(writing: Writing, kind: ChangeKind, *subscription_ids: str) -> int:
    """Take the next revision for a change of each subscription, and return the last one.

    Delete some of the changes that exceed the number to keep, but never fewer than are added once that number is reached.
    """
    assert writing.change is None  # noqa: S101 - once in a transaction
    row = writing.connection.execute(sa.select(registry)).one()
    added = [
        {"revision": revision, "kind": kind.value, "subscription_id": subscription_id, "change_id": token_hex(_CHANGE_ID_BYTES)}
        for revision, subscription_id in enumerate(subscription_ids, row.revision + 1)
    ]
    change = ResumePoint(row.revision + len(added), str(added[-1]["change_id"]))
    compacted_max = row.compacted_revision + max(_COMPACTED_MAX, len(added))
    compacted = max(row.compacted_revision, min(change.revision - writing.changes_kept, compacted_max))
    writing.connection.execute(changes.insert(), added)
    values = {"revision": change.revision, "change_id": change.change_id}
    if compacted > row.compacted_revision:
        values |= {"compacted_revision": compacted, "compacted_change_id": _change_id(writing, compacted)}
        writing.connection.execute(changes.delete().where(changes.c.revision <= compacted))
    writing.connection.execute(registry.update().values(values))
    writing.change = change
    return change.revision


def latest_point(reading: Reading) -> ResumePoint:
    """Return the revision of the latest change, with its id."""
    return ResumePoint(*reading.connection.execute(sa.select(registry.c.revision, registry.c.change_id)).one())


def is_system_paused(reading: Reading) -> bool:
    """Return whether all deliveries are paused."""
    return reading.connection.execute(sa.select(registry.c.pause)).scalar_one() is not None


def changes_after(reading: Reading, point: ResumePoint) -> ChangeBatch:
    """Return up to `BATCH_MAX` changes after a point, folded; a change id of "" is not compared.

    The batch leaves out a subscription that a change after the batch has deleted. Raises REVISION_COMPACTED if the revision is ahead of
    the registry, if its change has another id here, or if the changes after it are no longer kept.
    """
    point = _known(reading, point)
    query = sa.select(changes).where(changes.c.revision > point.revision).order_by(changes.c.revision).limit(BATCH_MAX)
    latest: dict[SubscriptionId, tuple[ChangeKind, int]] = {}
    for revision, kind, subscription_id, change_id in reading.connection.execute(query):
        point = ResumePoint(revision, change_id)
        latest.pop(subscription_id, None)
        latest[subscription_id] = (ChangeKind(kind), revision)
    found = SUBSCRIPTION_ROWS.where(subscriptions.c.id.in_([name for name, (kind, _) in latest.items() if kind is ChangeKind.PUT]))
    puts = {put.subscription.id: put for put in _puts(reading, reading.connection.execute(found))}
    items: list[PutSubscription | DeletedSubscription] = []
    for subscription_id, (kind, at) in latest.items():
        if kind is ChangeKind.DELETED:
            items.append(DeletedSubscription(subscription_id, at))
        elif subscription_id in puts:
            items.append(puts[subscription_id])
    return ChangeBatch(tuple(items), point, is_system_paused(reading))


def _known(reading: Reading, point: ResumePoint) -> ResumePoint:
    """Return a point with the id that its change has in this registry.

    Raises REVISION_COMPACTED if the ids differ, if the revision is ahead of the registry, or if a change after it is no longer kept.
    """
    row = reading.connection.execute(sa.select(registry)).one()
    if not row.compacted_revision <= point.revision <= row.revision:
        raise revision_compacted()
    ids = {row.compacted_revision: row.compacted_change_id, row.revision: row.change_id}
    change_id = ids.get(point.revision) or _change_id(reading, point.revision)
    if point.change_id not in {"", change_id}:
        raise revision_compacted()
    return ResumePoint(point.revision, change_id)


def _change_id(reading: Reading, revision: int) -> str:
    """Return the id of a change; "" if the change is not kept."""
    change_id: str | None = reading.connection.execute(sa.select(changes.c.change_id).where(changes.c.revision == revision)).scalar()
    return change_id or ""


def snapshot_part(reading: Reading, after_id: SubscriptionId) -> list[PutSubscription]:
    """Return up to `BATCH_MAX` subscriptions whose ids follow `after_id` ("" for the first)."""
    query = SUBSCRIPTION_ROWS.where(subscriptions.c.id > after_id).order_by(subscriptions.c.id).limit(BATCH_MAX)
    return _puts(reading, reading.connection.execute(query))


def put_of(reading: Reading, subscription: Subscription) -> PutSubscription:
    """Return a subscription as watches report it; raises `UnsealError` if one of its secrets cannot be unsealed."""
    return _all_opened(reading, [subscription])[0]


def _puts(reading: Reading, rows: Iterable[Row]) -> list[PutSubscription]:
    found = [subscription_from(row) for row in rows]
    try:
        return _all_opened(reading, found)
    except UnsealError:
        return [_put_or_held(reading, each) for each in found]


def _all_opened(reading: Reading, found: list[Subscription]) -> list[PutSubscription]:
    secrets = store_secrets.live(reading, [subscription.id for subscription in found])
    credentials = store_credentials.unseal(reading, found)
    return [PutSubscription(each, secrets.get(each.id, ()), credentials.get(each.id, "")) for each in found]


def _put_or_held(reading: Reading, subscription: Subscription) -> PutSubscription:
    """Return a subscription; if a secret is damaged, return it as paused, so that its deliveries wait and other subscriptions go on."""
    try:
        return put_of(reading, subscription)
    except UnsealError as error:
        logger().error(
            "subscription.unreadable",
            subscription=subscription.id,
            reason=error.message,
            effect="its deliveries wait until its secret is set again",
        )
        state = State.PAUSED if subscription.state is State.ACTIVE else subscription.state
        return PutSubscription(replace(subscription, state=state, credential=None), (), "")
