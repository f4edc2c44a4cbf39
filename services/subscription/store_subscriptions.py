"""Subscriptions: created, read, changed and deleted, each within one transaction.

server → [subscriptions] → secrets, changes

Law: another consumer's subscription is not found, exactly as a missing one is not.
"""

import dataclasses
from collections.abc import Collection

import sqlalchemy as sa

from services.runtime.errors import invalid_field
from services.runtime.ids import new_id
from services.subscription import store_changes, store_secrets
from services.subscription.errors import consumer_not_found, etag_mismatch, subscription_not_found
from services.subscription.model import EVERY_CONSUMER, ConsumerId, SigningSecret, State, Subscription, SubscriptionId
from services.subscription.schema import consumers, subscriptions
from services.subscription.transaction import Reading, Writing
from services.subscription.validation import SubscriptionDraft


def create(writing: Writing, owner: ConsumerId, draft: SubscriptionDraft, secret: str) -> tuple[Subscription, SigningSecret]:
    """Create a judged subscription with its first secret; raises CONSUMER_NOT_FOUND."""
    assert draft.protocol is not None  # noqa: S101 - refused before
    if writing.connection.execute(sa.select(consumers.c.id).where(consumers.c.id == owner)).one_or_none() is None:
        raise consumer_not_found()
    subscription_id = SubscriptionId(new_id("sub"))
    created = Subscription(
        id=subscription_id,
        consumer_id=owner,
        sink=draft.sink,
        protocol=draft.protocol,
        types=_distinct(draft.types),
        source=draft.source,
        description=draft.description,
        state=State.ACTIVE,
        state_reason="",
        create_ms=writing.now_ms,
        update_ms=writing.now_ms,
        revision=store_changes.record(writing, store_changes.Kind.PUT, subscription_id),
    )
    writing.connection.execute(subscriptions.insert().values(_columns(created)))
    return created, store_secrets.add(writing, subscription_id, secret, overlap_ms=0)


def get(reading: Reading, scope: str, subscription_id: str) -> Subscription:
    """Return a subscription that `scope` (a consumer's id or "*") may see; raises SUBSCRIPTION_NOT_FOUND."""
    row = reading.connection.execute(sa.select(subscriptions).where(subscriptions.c.id == subscription_id)).one_or_none()
    if row is None or scope not in {EVERY_CONSUMER, row.consumer_id}:
        raise subscription_not_found()
    return store_changes.subscription_from(row)


def page(reading: Reading, scope: str, after_id: str, size: int) -> tuple[list[Subscription], bool]:
    """Return up to `size` subscriptions of a scope whose ids follow `after_id`, and whether there are more."""
    query = sa.select(subscriptions).where(subscriptions.c.id > after_id).order_by(subscriptions.c.id).limit(size + 1)
    if scope != EVERY_CONSUMER:
        query = query.where(subscriptions.c.consumer_id == scope)
    found = [store_changes.subscription_from(row) for row in reading.connection.execute(query)]
    return found[:size], len(found) > size


def update(writing: Writing, current: Subscription, draft: SubscriptionDraft, paths: Collection[str]) -> Subscription:
    """Change the judged fields that `paths` name; where nothing differs, nothing changes, the etag neither."""
    described = "config" in paths or "config.description" in paths
    changed = dataclasses.replace(
        current,
        sink=draft.sink if "sink" in paths else current.sink,
        types=_distinct(draft.types) if "types" in paths else current.types,
        source=draft.source if "source" in paths else current.source,
        description=draft.description if described else current.description,
    )
    return current if changed == current else _put(writing, changed)


def delete(writing: Writing, current: Subscription) -> int:
    """Delete a subscription with its secrets; returns the revision of the deletion."""
    store_secrets.remove_all(writing, current.id)
    writing.connection.execute(subscriptions.delete().where(subscriptions.c.id == current.id))
    return store_changes.record(writing, store_changes.Kind.DELETED, current.id)


def secrets(reading: Reading, current: Subscription) -> tuple[SigningSecret, ...]:
    """Return the secrets in use now, the newest first."""
    return store_secrets.live(reading, [current.id]).get(current.id, ())


def rotate(writing: Writing, current: Subscription, secret: str, overlap_ms: int) -> SigningSecret:
    """Put a new secret in place, which is a change of the subscription. Raises INVALID_ARGUMENT for one in use already."""
    if any(live.secret == secret for live in secrets(writing, current)):
        raise invalid_field("secret", "is in use already; bring another one, or none to have one made")
    added = store_secrets.add(writing, current.id, secret, overlap_ms=overlap_ms)
    _put(writing, current)
    return added


def check_etag(current: Subscription, etag: str) -> None:
    """Raise ETAG_MISMATCH where the caller names another state than the current one; "" is any."""
    if etag not in {"", current.etag}:
        raise etag_mismatch()


def _put(writing: Writing, changed: Subscription) -> Subscription:
    revision = store_changes.record(writing, store_changes.Kind.PUT, changed.id)
    put = dataclasses.replace(changed, update_ms=writing.now_ms, revision=revision)
    writing.connection.execute(subscriptions.update().where(subscriptions.c.id == put.id).values(_columns(put)))
    return put


def _columns(subscription: Subscription) -> dict[str, object]:
    return {
        **{field.name: getattr(subscription, field.name) for field in dataclasses.fields(subscription)},
        "protocol": subscription.protocol.value,
        "types": list(subscription.types),
        "state": subscription.state.value,
    }


def _distinct(types: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(types))
