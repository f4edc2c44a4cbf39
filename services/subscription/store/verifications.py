"""Verifications: the callback tokens with which a sink may consent later, and the sinks' answers.

subscription_server → [verifications] → consent, subscriptions

Law 1: only a token's digest is stored; a token is valid for one sink, and for 24 hours.
Law 2: an answer counts only for the sink that gave it.
"""

import hashlib
import re
import secrets

import sqlalchemy as sa

from services.runtime.consumer_scope import EVERYONE
from services.subscription.errors import sink_changed, too_many_verifications, verification_not_found, verification_off
from services.subscription.model import Consent, State, Subscription, SubscriptionId, Verification, VerificationPolicy
from services.subscription.rules import consent
from services.subscription.store import subscriptions as store_subscriptions
from services.subscription.store.schema import callback_tokens, subscriptions
from services.subscription.store.transaction import Reading, Writing

TOKEN_MS = 24 * 3600 * 1000
TOKEN_BYTES = 32
BEGUN_MAX = 10
_BEGUN_WITHIN_MS = 3600 * 1000
_FORGOTTEN_MAX = 50
_FORM = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def begin(writing: Writing, current: Subscription, policy: VerificationPolicy) -> str:
    """Return a new callback token; raises STATE_CONFLICT if sink verification is off, OVERLOADED after too many within an hour."""
    if policy is VerificationPolicy.OFF:
        raise verification_off()
    columns, now_ms = callback_tokens.c, writing.now_ms
    recent = sa.and_(columns.subscription_id == current.id, columns.expire_ms > now_ms + TOKEN_MS - _BEGUN_WITHIN_MS)
    if writing.connection.execute(sa.select(sa.func.count()).select_from(callback_tokens).where(recent)).scalar_one() >= BEGUN_MAX:
        raise too_many_verifications(BEGUN_MAX)
    old = sa.select(columns.digest).where(columns.expire_ms <= now_ms).order_by(columns.expire_ms).limit(_FORGOTTEN_MAX)
    writing.connection.execute(callback_tokens.delete().where(columns.digest.in_(old)))
    token = secrets.token_urlsafe(TOKEN_BYTES)
    writing.connection.execute(
        callback_tokens.insert().values(
            digest=_digest(token), subscription_id=current.id, sink_revision=current.sink_revision, expire_ms=now_ms + TOKEN_MS
        )
    )
    return token


def report(writing: Writing, subscription_id: str, sink_revision: int, answer: Verification, policy: VerificationPolicy) -> Subscription:
    """Store a sink's answer; raises SUBSCRIPTION_NOT_FOUND, and ETAG_MISMATCH if the subscription has another sink now."""
    current = store_subscriptions.get(writing, EVERYONE, subscription_id)
    if current.sink_revision != sink_revision:
        raise sink_changed()
    if answer.consent is Consent.REFUSED:
        remove(writing, current.id)
    return store_subscriptions.put(writing, current, consent.record_answer(current, answer, policy))


def find(reading: Reading, token: str) -> Subscription:
    """Return the subscription of a callback token; raises VERIFICATION_NOT_FOUND."""
    columns = callback_tokens.c
    query = sa.select(columns.subscription_id, columns.sink_revision).where(
        columns.digest == _digest(token), columns.expire_ms > reading.now_ms
    )
    row = reading.connection.execute(query).one_or_none() if _FORM.fullmatch(token) else None
    if row is None:
        raise verification_not_found()
    found = store_subscriptions.get(reading, EVERYONE, row.subscription_id)
    if found.sink_revision != row.sink_revision:
        raise verification_not_found()
    return found


def confirm(writing: Writing, token: str, rate_per_minute: int | None, policy: VerificationPolicy) -> None:
    """Store the consent that a callback token gives; raises VERIFICATION_NOT_FOUND."""
    current = find(writing, token)
    known = current.verification
    if known is not None and (known.consent, known.rate_per_minute) == (Consent.GRANTED, rate_per_minute):
        return
    answer = Verification(Consent.GRANTED, rate_per_minute, "", writing.now_ms)
    store_subscriptions.put(writing, current, consent.record_answer(current, answer, policy))


def remove(writing: Writing, subscription_id: SubscriptionId) -> None:
    """Remove the callback tokens of a subscription, so that they can give no consent any more."""
    writing.connection.execute(callback_tokens.delete().where(callback_tokens.c.subscription_id == subscription_id))


def unverified(reading: Reading) -> list[str]:
    """Return the ids of the subscriptions that wait for their sink's consent."""
    return list(reading.connection.execute(sa.select(subscriptions.c.id).where(subscriptions.c.state == State.UNVERIFIED.value)).scalars())


def release(writing: Writing, subscription_id: str) -> None:
    """Activate a subscription that waited for its sink's consent, since consent is no longer required."""
    current = store_subscriptions.get(writing, EVERYONE, subscription_id)
    store_subscriptions.put(writing, current, consent.waive(current))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
