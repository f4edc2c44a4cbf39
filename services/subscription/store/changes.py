"""Changes: the history of the subscriptions, from which watches resume.

subscriptions, consumers, system → [changes] → watch

Law 1: a change takes the next revision; with one writer, revisions become visible in order, without gaps.
Law 2: at a checkpoint, the watcher knows every subscription, and which consumers are paused, as of that revision or later, never earlier.
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
from services.subscription.model import (
    ConsumerId,
    ConsumerPause,
    DeletedSubscription,
    PutSubscription,
    ResumePoint,
    State,
    Subscription,
    SubscriptionId,
)
from services.subscription.store import credentials as store_credentials
from services.subscription.store import secrets as store_secrets
from services.subscription.store.rows import SUBSCRIPTION_ROWS, subscription_from
from services.subscription.store.schema import changes, consumers, registry, subscriptions
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
    CONSUMER = "consumer"
    """A consumer was paused or resumed."""
    SYSTEM = "system"
    """Deliveries were paused or resumed; a checkpoint tells which."""


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Some changes, folded into the latest state of each subscription and consumer.

    After this batch, all changes up to `point` are delivered. Pauses of consumers come first and resumptions last, so that no
    subscription counts as active that was not active before and is not active after the batch.
    """

    items: tuple[PutSubscription | DeletedSubscription | ConsumerPause, ...]
    point: ResumePoint
    system_paused: bool


def record(writing: Writing, kind: ChangeKind, subject_id: str) -> int:
    """Take the next revision for a change of a subscription, a consumer or the system (""), and return it.

    Delete some of the changes that exceed the number to keep.
    """
    assert writing.change is None  # noqa: S101 - once in a transaction
    row = writing.connection.execute(sa.select(registry)).one()
    change = ResumePoint(row.revision + 1, token_hex(_CHANGE_ID_BYTES))
    values = {"revision": change.revision, "change_id": change.change_id}
    writing.connection.execute(changes.insert().values(kind=kind.value, subject_id=subject_id, **values))
    compacted = max(row.compacted_revision, min(change.revision - writing.changes_kept, row.compacted_revision + _COMPACTED_MAX))
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
    latest: dict[str, tuple[ChangeKind, int]] = {}
    for revision, kind, subject_id, change_id in reading.connection.execute(query):
        point = ResumePoint(revision, change_id)
        latest.pop(subject_id, None)
        latest[subject_id] = (ChangeKind(kind), revision)
    found = SUBSCRIPTION_ROWS.where(subscriptions.c.id.in_([name for name, (kind, _) in latest.items() if kind is ChangeKind.PUT]))
    puts = {put.subscription.id: put for put in _puts(reading, reading.connection.execute(found))}
    items: list[PutSubscription | DeletedSubscription] = []
    for subject_id, (kind, at) in latest.items():
        if kind is ChangeKind.DELETED:
            items.append(DeletedSubscription(SubscriptionId(subject_id), at))
        elif kind is ChangeKind.PUT and subject_id in puts:
            items.append(puts[SubscriptionId(subject_id)])
    pauses = _pauses_of(reading, [name for name, (kind, _) in latest.items() if kind is ChangeKind.CONSUMER])
    paused, resumed = ([pause for pause in pauses if pause.paused is is_paused] for is_paused in (True, False))
    return ChangeBatch((*paused, *items, *resumed), point, is_system_paused(reading))


def _pauses_of(reading: Reading, consumer_ids: list[str]) -> list[ConsumerPause]:
    """Return whether consumers are paused, in the order of their ids."""
    if not consumer_ids:
        return []
    query = sa.select(consumers.c.id, consumers.c.pause).where(consumers.c.id.in_(consumer_ids)).order_by(consumers.c.id)
    return [ConsumerPause(consumer_id, pause is not None) for consumer_id, pause in reading.connection.execute(query)]


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


def paused_part(reading: Reading, after_id: ConsumerId) -> list[ConsumerPause]:
    """Return up to `BATCH_MAX` consumers that are paused and whose ids follow `after_id` ("" for the first)."""
    query = sa.select(consumers.c.id).where(consumers.c.id > after_id, consumers.c.pause.is_not(None)).order_by(consumers.c.id)
    return [ConsumerPause(consumer_id, paused=True) for consumer_id in reading.connection.execute(query.limit(BATCH_MAX)).scalars()]


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
