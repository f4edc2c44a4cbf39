"""Secrets: the signing secrets and private keys of the subscriptions, sealed; each is kept until it expires.

subscriptions, changes → [secrets] → vault, database
"""

from collections.abc import Sequence

import sqlalchemy as sa

from services.subscription.errors import too_many_secrets
from services.subscription.model import Scheme, SigningSecret, SubscriptionId
from services.subscription.store.schema import signing_secrets
from services.subscription.store.transaction import Reading, Writing
from services.subscription.store.vault import Sealed

LIVE_MAX = 10


def live(reading: Reading, subscription_ids: Sequence[SubscriptionId]) -> dict[SubscriptionId, tuple[SigningSecret, ...]]:
    """Return the live secrets of all schemes, the newest first, by subscription."""
    columns = signing_secrets.c
    query = (
        sa.select(columns.subscription_id, columns.scheme, columns.secret_key_id, columns.box, columns.create_ms, columns.expire_ms)
        .where(columns.subscription_id.in_(subscription_ids), sa.or_(columns.expire_ms.is_(None), columns.expire_ms > reading.now_ms))
        .order_by(columns.subscription_id, columns.number.desc())
    )
    found: dict[SubscriptionId, list[SigningSecret]] = {}
    for subscription_id, scheme, secret_key_id, box, create_ms, expire_ms in reading.connection.execute(query):
        clear = reading.vault.open(Sealed(secret_key_id, box), seal_context(subscription_id)).decode()
        found.setdefault(subscription_id, []).append(SigningSecret(Scheme(scheme), clear, create_ms, expire_ms))
    return {name: tuple(secrets) for name, secrets in found.items()}


def add(writing: Writing, subscription_id: SubscriptionId, scheme: Scheme, secret: str, *, overlap_ms: int) -> SigningSecret:
    """Add a new secret. Older secrets of its scheme expire after the overlap, or earlier if they already do; expired secrets are deleted.

    Raises STATE_CONFLICT if the scheme would have more than `LIVE_MAX` live secrets.
    """
    connection, columns, now_ms = writing.connection, signing_secrets.c, writing.now_ms
    end_ms = now_ms + overlap_ms
    ours = columns.subscription_id == subscription_id
    alike = sa.and_(ours, columns.scheme == scheme.value)
    newest = connection.execute(sa.select(sa.func.max(columns.number)).where(ours)).scalar_one()
    outlast = sa.or_(columns.expire_ms.is_(None), columns.expire_ms > end_ms)
    connection.execute(signing_secrets.update().where(alike, outlast).values(expire_ms=end_ms))
    connection.execute(signing_secrets.delete().where(ours, columns.expire_ms <= now_ms))
    if connection.execute(sa.select(sa.func.count()).select_from(signing_secrets).where(alike)).scalar_one() >= LIVE_MAX:
        raise too_many_secrets(LIVE_MAX)
    sealed = writing.vault.seal(secret.encode(), seal_context(subscription_id))
    connection.execute(
        signing_secrets.insert().values(
            subscription_id=subscription_id,
            number=(newest or 0) + 1,
            scheme=scheme.value,
            secret_key_id=sealed.secret_key_id,
            box=sealed.box,
            create_ms=now_ms,
            expire_ms=None,
        )
    )
    return SigningSecret(scheme, secret, now_ms, None)


def remove_all(writing: Writing, subscription_id: SubscriptionId) -> None:
    """Remove the secrets of a subscription that is deleted."""
    writing.connection.execute(signing_secrets.delete().where(signing_secrets.c.subscription_id == subscription_id))


def seal_context(subscription_id: SubscriptionId) -> str:
    """Return the context that a subscription's secrets are sealed for."""
    return f"signing-secret/{subscription_id}"
