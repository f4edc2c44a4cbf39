"""Opening: from the settings to a registry that may be trusted, or one line that says what to change.

[opening] → store → server

Law 1: one process at a time has the registry open, so that its latest revision may be kept in memory.
Law 2: a secret key that is missing or wrong is found here, never later by a value that does not open.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from services.runtime.clock import Clock, SystemClock, unix_ms
from services.runtime.database import database_path, explained, migrate, open_engine, sole_owner
from services.runtime.lifecycle import StartError
from services.runtime.settings import PREFIX, SubscriptionSettings
from services.subscription.model import ResumePoint
from services.subscription.schema import answers, credential_secrets, keys, registry, secret_key_checks, signing_secrets
from services.subscription.store_answers import KEPT_MS
from services.subscription.vault import Sealed, UnsealError, Vault

MIGRATIONS = Path(__file__).parent / "migrations"
_CHECK = b"hooktide"


@dataclass(frozen=True, slots=True)
class Registry:
    """An open registry: its file, the engine to write by, and what stood there when it was opened."""

    path: Path
    engine: sa.Engine
    vault: Vault
    registry_id: str
    latest: ResumePoint
    is_new: bool
    """Whether it was made just now, so that nobody can have known it before."""
    changes_kept: int


@contextlib.contextmanager
def opened(settings: SubscriptionSettings, clock: Clock | None = None) -> Iterator[Registry]:
    """Open the registry, bring its schema up to date and check the secret keys; close it in the end.

    Raises `StartError` where another process has it open, the file is no registry, or a secret key is missing or wrong.
    """
    vault = Vault(settings.secret_keys())
    path = database_path(settings.subscription_database_url, settings.data_dir, "subscription")
    with sole_owner(path):
        is_new = not path.exists()
        migrate(path, MIGRATIONS)
        engine = open_engine(path)
        try:
            with explained(path), engine.begin() as connection:
                _check_secret_keys(connection, vault, path, unix_ms(clock or SystemClock()))
                row = connection.execute(sa.select(registry.c.registry_id, registry.c.revision, registry.c.change_id)).one()
            latest = ResumePoint(row.revision, row.change_id)
            yield Registry(path, engine, vault, row.registry_id, latest, is_new, settings.subscription_changes_kept)
        finally:
            engine.dispose()


def _check_secret_keys(connection: sa.Connection, vault: Vault, path: Path, now_ms: int) -> None:
    checked = set()
    for secret_key_id, box in connection.execute(sa.select(secret_key_checks.c.secret_key_id, secret_key_checks.c.box)):
        if secret_key_id not in vault.secret_key_ids:
            continue
        try:
            vault.open(Sealed(secret_key_id, box), _place(secret_key_id))
        except UnsealError:
            message = (
                f"{PREFIX}SECRET_KEY: the key {secret_key_id!r} is not the one of that id that {path} was written with; put that one back"
            )
            raise StartError(message) from None
        checked.add(secret_key_id)
    missing = sorted(_secret_keys_used(connection, now_ms) - set(vault.secret_key_ids))
    if missing:
        message = f"{PREFIX}SECRET_KEY lacks the key {missing[0]!r}, which {path} still needs; add it after the newest"
        raise StartError(message)
    for secret_key_id in vault.secret_key_ids:
        if secret_key_id not in checked:
            sealed = vault.seal_with(secret_key_id, _CHECK, _place(secret_key_id))
            connection.execute(secret_key_checks.insert().values(secret_key_id=secret_key_id, box=sealed.box))


def _secret_keys_used(connection: sa.Connection, now_ms: int) -> set[str]:
    """Return the ids of the secret keys without which something that still counts would be lost."""
    live = sa.or_(signing_secrets.c.expire_ms.is_(None), signing_secrets.c.expire_ms > now_ms)
    working = sa.and_(keys.c.revoke_ms.is_(None), sa.or_(keys.c.expire_ms.is_(None), keys.c.expire_ms > now_ms))
    used = sa.union(
        sa.select(signing_secrets.c.secret_key_id).where(live),
        sa.select(credential_secrets.c.secret_key_id),
        sa.select(keys.c.secret_key_id).where(working),
        sa.select(answers.c.secret_key_id).where(answers.c.create_ms > now_ms - KEPT_MS),
    )
    return set(connection.execute(used).scalars())


def _place(secret_key_id: str) -> str:
    return f"secret-key-check/{secret_key_id}"
