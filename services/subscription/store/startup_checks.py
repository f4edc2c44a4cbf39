"""Startup checks: open a registry whose database and secret keys are right, or fail with one line that says what to change.

settings → [startup_checks] → store → server

Law 1: only one process at a time has the registry open, so that the process may keep the latest revision in memory.
Law 2: a missing or wrong secret key is found here, not later when a value cannot be unsealed.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from services.runtime.clock import Clock, SystemClock, unix_ms
from services.runtime.configuration.settings import SubscriptionSettings
from services.subscription.model import ResumePoint
from services.subscription.store import secret_keys
from services.subscription.store.schema import registry
from services.subscription.store.sqlite import Database, open_database
from services.subscription.store.vault import Vault


@dataclass(frozen=True, slots=True)
class OpenRegistry:
    """A registry that this process has opened: its database, the vault, and its state when it was opened."""

    database: Database
    vault: Vault
    registry_id: str
    latest: ResumePoint
    changes_kept: int


@contextlib.contextmanager
def open_registry(settings: SubscriptionSettings, clock: Clock | None = None) -> Iterator[OpenRegistry]:
    """Open the registry, bring its schema up to date and check the secret keys; close the registry at the end.

    Raises `StartError` if another process has the registry open, the database is not a registry, or a secret key is missing or wrong.
    """
    vault = Vault(settings.secret_keys())
    with open_database(settings) as database:
        with database.first_transaction() as connection:
            secret_keys.open_peppers(connection, vault)
            secret_keys.check(connection, vault, database.name, unix_ms(clock or SystemClock()))
            secret_keys.add_checks(connection, vault)
            row = connection.execute(sa.select(registry.c.registry_id, registry.c.revision, registry.c.change_id)).one()
        latest = ResumePoint(row.revision, row.change_id)
        yield OpenRegistry(database, vault, row.registry_id, latest, settings.subscription_changes_kept)
