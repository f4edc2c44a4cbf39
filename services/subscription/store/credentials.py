"""Credentials: the secret members of credentials, each sealed for its owner, subscription and kind.

subscriptions, changes → [credentials] → vault, database

Law: a secret can be unsealed only for the owner, the subscription and the kind that it was sealed for.
"""

from collections.abc import Iterable

import sqlalchemy as sa

from services.subscription.credential import CredentialKind, SecretCredential
from services.subscription.model import ConsumerId, Subscription, SubscriptionId
from services.subscription.store.schema import credential_secrets
from services.subscription.store.transaction import Reading, Writing
from services.subscription.store.vault import Sealed, UnsealError


def unseal(reading: Reading, subscriptions: Iterable[Subscription]) -> dict[SubscriptionId, str]:
    """Return the secret members of the credentials of those subscriptions that have one."""
    kinds = {found.id: (found.consumer_id, found.credential.kind) for found in subscriptions if found.credential is not None}
    rows = sa.select(credential_secrets).where(credential_secrets.c.subscription_id.in_(kinds))
    return {
        name: reading.vault.open(Sealed(secret_key_id, box), seal_context(*kinds[name], name)).decode()
        for name, secret_key_id, box in reading.connection.execute(rows)
    }


def load(reading: Reading, current: Subscription) -> SecretCredential | None:
    """Return a subscription's credential with its secret member, "" if that is damaged; None if the subscription has no credential."""
    if current.credential is None:
        return None
    try:
        return SecretCredential(current.credential, unseal(reading, [current])[current.id])
    except UnsealError:
        return SecretCredential(current.credential, "")


def save(writing: Writing, subscription_id: SubscriptionId, owner: ConsumerId, credential: SecretCredential | None) -> None:
    """Replace a subscription's stored secret member with that of `credential`; None only removes it."""
    remove(writing, subscription_id)
    if credential is None:
        return
    sealed = writing.vault.seal(credential.secret.encode(), seal_context(owner, credential.credential.kind, subscription_id))
    writing.connection.execute(
        credential_secrets.insert().values(subscription_id=subscription_id, secret_key_id=sealed.secret_key_id, box=sealed.box)
    )


def remove(writing: Writing, subscription_id: SubscriptionId) -> None:
    """Remove the secret member of a subscription's credential."""
    writing.connection.execute(credential_secrets.delete().where(credential_secrets.c.subscription_id == subscription_id))


def seal_context(owner: ConsumerId, kind: CredentialKind, subscription_id: SubscriptionId) -> str:
    """Return the context that a credential's secret is sealed for."""
    return f"sink-credential/{owner}/{subscription_id}/{kind.value}"
