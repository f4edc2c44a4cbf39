"""Startup checks: open a registry whose file and secret keys are right, or fail with one line that says what to change.

settings → [startup_checks] → store → server

Law 1: only one process at a time has the registry open, so that the process may keep the latest revision in memory.
Law 2: a missing or wrong secret key is found here, not later when a value cannot be unsealed.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from services.runtime.clock import Clock, SystemClock, unix_ms
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.database import database_path, explained, migrate, open_engine, sole_owner
from services.subscription.model import ResumePoint
from services.subscription.store import secret_keys
from services.subscription.store.schema import registry
from services.subscription.store.vault import Vault

MIGRATIONS = Path(__file__).parents[1] / "migrations"


@dataclass(frozen=True, slots=True)
class Registry:
    """An open registry: its file, the engine for writes, the vault, and its state when it was opened."""

    path: Path
    engine: sa.Engine
    vault: Vault
    registry_id: str
    latest: ResumePoint
    is_new: bool
    """Whether this process has just created the registry, so that no earlier process can have granted read leases."""
    changes_kept: int


@contextlib.contextmanager
def opened(settings: SubscriptionSettings, clock: Clock | None = None) -> Iterator[Registry]:
    """Open the registry, bring its schema up to date and check the secret keys; close the registry at the end.

    Raises `StartError` if another process has the registry open, the file is not a registry, or a secret key is missing or wrong.
    """
    vault = Vault(settings.secret_keys())
    path = database_path(settings.subscription_database_url, settings.data_dir, "subscription")
    with sole_owner(path):
        is_new = not path.exists()
        migrate(path, MIGRATIONS)
        engine = open_engine(path)
        try:
            with explained(path), engine.begin() as connection:
                secret_keys.open_peppers(connection, vault)
                secret_keys.check(connection, vault, path, unix_ms(clock or SystemClock()))
                secret_keys.note_checks(connection, vault)
                row = connection.execute(sa.select(registry.c.registry_id, registry.c.revision, registry.c.change_id)).one()
            latest = ResumePoint(row.revision, row.change_id)
            yield Registry(path, engine, vault, row.registry_id, latest, is_new, settings.subscription_changes_kept)
        finally:
            engine.dispose()
