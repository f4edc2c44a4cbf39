"""Subscriptions: create, read, change and delete subscriptions, each within one transaction.

subscription_server → [subscriptions] → consent, secrets, credentials, changes

Law: for a caller, another consumer's subscription looks exactly like a missing one: it is not found.
"""

import dataclasses
from collections.abc import Collection

from services.runtime.consumer_scope import EVERYONE, Everyone, Scope
from services.runtime.errors import invalid_field
from services.runtime.ids import new_subscription_id, slot_in_turn
from services.subscription.errors import etag_mismatch, sink_changed, subscription_not_found
from services.subscription.model import (
    ConsumerId,
    Pause,
    Scheme,
    SigningSecret,
    State,
    Subscription,
    SubscriptionId,
    VerificationPolicy,
)
from services.subscription.rules import consent
from services.subscription.rules import pause as rules_pause
from services.subscription.rules.signing_key import new_private_key
from services.subscription.rules.validation import SubscriptionDraft
from services.subscription.store import changes as store_changes
from services.subscription.store import consumers as store_consumers
from services.subscription.store import credentials as store_credentials
from services.subscription.store import secrets as store_secrets
from services.subscription.store.rows import SUBSCRIPTION_ROWS, columns_of, subscription_from
from services.subscription.store.schema import callback_tokens, subscriptions
from services.subscription.store.transaction import Reading, Writing
from services.subscription.store.vault import UnsealError


def create(
    writing: Writing, owner: ConsumerId, draft: SubscriptionDraft, secret: str, policy: VerificationPolicy
) -> tuple[Subscription, SigningSecret]:
    """Create a subscription from a valid draft, with its first secret; raises CONSUMER_NOT_FOUND.

    Its slot follows that of its owner's subscription before it.
    """
    assert draft.protocol is not None  # noqa: S101 - refused before
    subscription_id = SubscriptionId(new_subscription_id(slot_in_turn(owner, store_consumers.next_turn(writing, owner))))
    revision = store_changes.record(writing, store_changes.ChangeKind.PUT, subscription_id)
    state, reason = consent.initial_state(policy)
    created = Subscription(
        id=subscription_id,
        consumer_id=owner,
        sink=draft.sink,
        protocol=draft.protocol,
        types=_distinct(draft.types),
        source=draft.source,
        config=draft.config.to_config(),
        settings=draft.settings.to_settings(),
        credential=None if draft.credential is None else draft.credential.credential,
        state=state,
        state_reason=reason,
        verification=None,
        create_ms=writing.now_ms,
        update_ms=writing.now_ms,
        revision=revision,
        sink_revision=revision,
        consumer_pause=store_consumers.get(writing, owner).pause,
    )
    writing.connection.execute(subscriptions.insert().values(columns_of(created)))
    store_credentials.save(writing, subscription_id, owner, draft.credential)
    first = store_secrets.add(writing, subscription_id, Scheme.V1, secret, overlap_ms=0)
    _give_key(writing, created)
    return created, first


def get(reading: Reading, scope: Scope, subscription_id: str) -> Subscription:
    """Return a subscription of the scope; raises SUBSCRIPTION_NOT_FOUND."""
    row = reading.connection.execute(SUBSCRIPTION_ROWS.where(subscriptions.c.id == subscription_id)).one_or_none()
    if row is None or not scope.includes(row.consumer_id):
        raise subscription_not_found()
    return subscription_from(row)


def page(reading: Reading, scope: Scope, after_id: str, size: int) -> tuple[list[Subscription], bool]:
    """Return up to `size` subscriptions of a scope whose ids follow `after_id`, and whether there are more."""
    query = SUBSCRIPTION_ROWS.where(subscriptions.c.id > after_id).order_by(subscriptions.c.id).limit(size + 1)
    if not isinstance(scope, Everyone):
        query = query.where(subscriptions.c.consumer_id == scope.consumer_id)
    found = [subscription_from(row) for row in reading.connection.execute(query)]
    return found[:size], len(found) > size


def update(
    writing: Writing, current: Subscription, draft: SubscriptionDraft, paths: Collection[str], policy: VerificationPolicy
) -> Subscription:
    """Change the sections that `paths` name to those of a merged, valid draft. If nothing differs, nothing changes, not even the etag."""
    sections = {path.partition(".")[0] for path in paths}
    changed = dataclasses.replace(
        current,
        types=_distinct(draft.types) if "types" in sections else current.types,
        source=draft.source if "source" in sections else current.source,
        config=draft.config.to_config() if "config" in sections else current.config,
        settings=draft.settings.to_settings() if "protocol_settings" in sections else current.settings,
    )
    if "sink" in sections and draft.sink != current.sink:
        changed = consent.change_sink(changed, draft.sink, policy)
    if "sink_credential" in sections and draft.credential != store_credentials.load(writing, current):
        store_credentials.save(writing, current.id, current.consumer_id, draft.credential)
        changed = dataclasses.replace(changed, credential=None if draft.credential is None else draft.credential.credential)
    elif changed == current:
        return current
    _give_key(writing, changed)
    return put(writing, current, changed)


def disable(writing: Writing, subscription_id: str, sink_revision: int, reason: str) -> Subscription:
    """Disable a subscription whose sink is gone; raises ETAG_MISMATCH if that is a former sink."""
    current = get(writing, EVERYONE, subscription_id)
    if current.sink_revision != sink_revision:
        raise sink_changed()
    changed = consent.disable(current, reason)
    return current if changed == current else put(writing, current, changed)


def pause(writing: Writing, current: Subscription, new: Pause) -> Subscription:
    """Pause a subscription; raises STATE_CONFLICT if it gets no events anyway."""
    changed = rules_pause.paused(current, new)
    return current if changed == current else put(writing, current, changed)


def resume(writing: Writing, current: Subscription, policy: VerificationPolicy) -> Subscription:
    """End a subscription's pause, or enable it again; raises STATE_CONFLICT if it waits for its sink's consent."""
    changed = rules_pause.resumed(current, policy, consent.NOT_ASKED)
    # What is known of the sink of a disabled subscription, such as for how long it has failed, no longer counts.
    return current if changed == current else put(writing, current, changed, sink_renewed=current.state is State.DISABLED)


def delete(writing: Writing, current: Subscription) -> int:
    """Delete a subscription with its secrets; return the revision of the deletion."""
    store_secrets.remove_all(writing, current.id)
    store_credentials.remove(writing, current.id)
    writing.connection.execute(callback_tokens.delete().where(callback_tokens.c.subscription_id == current.id))
    writing.connection.execute(subscriptions.delete().where(subscriptions.c.id == current.id))
    return store_changes.record(writing, store_changes.ChangeKind.DELETED, current.id)


def secrets(reading: Reading, current: Subscription) -> tuple[SigningSecret, ...]:
    """Return the live secrets of all schemes, the newest first."""
    return store_secrets.live(reading, [current.id]).get(current.id, ())


def rotate(writing: Writing, current: Subscription, scheme: Scheme, secret: str, overlap_ms: int) -> SigningSecret:
    """Add a new secret, which is a change of the subscription. Raises INVALID_ARGUMENT if that secret is live already."""
    if any(live.secret == secret for live in _readable_secrets(writing, current)):
        raise invalid_field("secret", "is in use already; give another one, or leave it out and a new one is made")
    added = store_secrets.add(writing, current.id, scheme, secret, overlap_ms=overlap_ms)
    put(writing, current, current)
    return added


def _readable_secrets(reading: Reading, current: Subscription) -> tuple[SigningSecret, ...]:
    try:
        return secrets(reading, current)
    except UnsealError:
        # The owner repairs a damaged secret by rotating it, so the damage must not stop the rotation.
        return ()


def check_etag(current: Subscription, etag: str) -> None:
    """Raise ETAG_MISMATCH if the caller names another state than the current one; "" matches any state."""
    if etag not in {"", current.etag}:
        raise etag_mismatch()


def put(writing: Writing, current: Subscription, changed: Subscription, *, sink_renewed: bool = False) -> Subscription:
    """Store a changed subscription as the change of this transaction, and return it with its new revision.

    With `sink_renewed`, its sink counts as changed even if it is the same.
    """
    revision = store_changes.record(writing, store_changes.ChangeKind.PUT, changed.id)
    sink_revision = revision if sink_renewed or changed.sink != current.sink else current.sink_revision
    stored = dataclasses.replace(changed, update_ms=writing.now_ms, revision=revision, sink_revision=sink_revision)
    writing.connection.execute(subscriptions.update().where(subscriptions.c.id == stored.id).values(columns_of(stored)))
    return stored


def _give_key(writing: Writing, subscription: Subscription) -> None:
    """Create the first Ed25519 key of a subscription if its settings ask for V1A signatures and no such key is live."""
    if Scheme.V1A not in subscription.settings.signatures:
        return
    if not any(live.scheme is Scheme.V1A for live in secrets(writing, subscription)):
        store_secrets.add(writing, subscription.id, Scheme.V1A, new_private_key(), overlap_ms=0)


def _distinct(types: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(types))
