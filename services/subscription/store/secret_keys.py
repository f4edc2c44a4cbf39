"""Secret keys: whether the configured secret keys are the right ones, and how many values still need each of them.

startup_checks, app → [secret_keys] → vault, database

Law: a missing or wrong secret key is refused with a message of one line, before it seals or unseals any other value.
"""

from collections import Counter
from dataclasses import dataclass

import sqlalchemy as sa

from services.runtime.configuration.setting_types import PREFIX
from services.runtime.service_process import StartError
from services.subscription.store.idempotency import KEPT_MS
from services.subscription.store.schema import answers, credential_secrets, key_peppers, keys, secret_key_checks, signing_secrets
from services.subscription.store.vault import Sealed, UnsealError, Vault

_CHECK = b"hooktide"


@dataclass(frozen=True, slots=True)
class SecretKeyUse:
    """How many values need a secret key, by kind."""

    secret_key_id: str
    signing_secrets: int
    credentials: int
    answers: int
    api_keys: int


def check(connection: sa.Connection, vault: Vault, database: str, now_ms: int) -> None:
    """Raise `StartError` unless a vault has every secret key that the registry needs, and each is the right key of its id.

    `database` is what the error calls the registry's database.
    """
    for secret_key_id, box in connection.execute(sa.select(secret_key_checks.c.secret_key_id, secret_key_checks.c.box)):
        if secret_key_id in vault.secret_key_ids:
            try:
                vault.open(Sealed(secret_key_id, box), _check_context(secret_key_id))
            except UnsealError:
                message = (
                    f"{PREFIX}SECRET_KEY: the key {secret_key_id!r} differs from the key of this id with which {database} was "
                    "written; restore that key, and give the new key another id"
                )
                raise StartError(message) from None
    missing = sorted(_needed(connection, now_ms) - set(vault.secret_key_ids))
    if missing:
        message = (
            f"{PREFIX}SECRET_KEY does not have the key {missing[0]!r}, which {database} still needs; add it after the newest key "
            "(`hooktide secrets reseal` says when you can remove it)"
        )
        raise StartError(message)


def without_check(connection: sa.Connection, vault: Vault) -> list[str]:
    """Return the ids of the secret keys that have no check stored, so that another key of the same id would not be noticed."""
    noted = set(connection.execute(sa.select(secret_key_checks.c.secret_key_id)).scalars())
    return [secret_key_id for secret_key_id in vault.secret_key_ids if secret_key_id not in noted]


def add_checks(connection: sa.Connection, vault: Vault) -> None:
    """Store a check for each secret key that has none, which reveals another key of the same id."""
    for secret_key_id in without_check(connection, vault):
        sealed = vault.seal_with(secret_key_id, _CHECK, _check_context(secret_key_id))
        connection.execute(secret_key_checks.insert().values(secret_key_id=secret_key_id, box=sealed.box))


def open_peppers(connection: sa.Connection, vault: Vault) -> None:
    """Let a vault recognise the API keys that earlier secret keys hashed; `check` reports a missing or wrong secret key of a pepper."""
    for name, secret_key_id, box in connection.execute(sa.select(key_peppers)):
        try:
            vault.keep_pepper(name, vault.open(Sealed(secret_key_id, box), pepper_context(name)))
        except UnsealError:
            continue


def uses(connection: sa.Connection, newest: str, now_ms: int) -> list[SecretKeyUse]:
    """Return how many values need each secret key other than the newest, by id; empty if all of those keys may be removed."""
    signing, credentials, stored_answers = (
        _counted(connection, column)
        for column in (signing_secrets.c.secret_key_id, credential_secrets.c.secret_key_id, answers.c.secret_key_id)
    )
    api_keys = api_keys_by_secret_key(connection, now_ms)
    older = sorted((signing.keys() | credentials.keys() | stored_answers.keys() | api_keys.keys()) - {newest})
    return [SecretKeyUse(name, signing[name], credentials[name], stored_answers[name], api_keys[name]) for name in older]


def _counted(connection: sa.Connection, column: sa.Column[str]) -> Counter[str]:
    rows = connection.execute(sa.select(column, sa.func.count().label("rows")).group_by(column))
    return Counter({row[0]: row.rows for row in rows})


def api_keys_by_secret_key(connection: sa.Connection, now_ms: int) -> Counter[str]:
    """Return how many valid API keys need each secret key: the key that they were hashed with, or the key that seals its pepper."""
    sealed_by = {row.id: row.secret_key_id for row in connection.execute(sa.select(key_peppers.c.id, key_peppers.c.secret_key_id))}
    works = sa.and_(keys.c.revoke_ms.is_(None), sa.or_(keys.c.expire_ms.is_(None), keys.c.expire_ms > now_ms))
    found: Counter[str] = Counter()
    for name, count in connection.execute(sa.select(keys.c.secret_key_id, sa.func.count()).where(works).group_by(keys.c.secret_key_id)):
        found[sealed_by.get(name, name)] += count
    return found


def pepper_context(name: str) -> str:
    """Return the context that a pepper is sealed for."""
    return f"key-pepper/{name}"


def _needed(connection: sa.Connection, now_ms: int) -> set[str]:
    """Return the ids of the secret keys that unexpired values and valid API keys need."""
    live = sa.or_(signing_secrets.c.expire_ms.is_(None), signing_secrets.c.expire_ms > now_ms)
    sealed = sa.union(
        sa.select(signing_secrets.c.secret_key_id).where(live),
        sa.select(credential_secrets.c.secret_key_id),
        sa.select(answers.c.secret_key_id).where(answers.c.create_ms > now_ms - KEPT_MS),
    )
    return set(connection.execute(sealed).scalars()) | set(api_keys_by_secret_key(connection, now_ms))


def _check_context(secret_key_id: str) -> str:
    return f"secret-key-check/{secret_key_id}"
