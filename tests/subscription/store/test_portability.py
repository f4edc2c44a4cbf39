"""Portability: the registry's statements are SQLAlchemy's and run on another database; one module knows SQLite."""

import re
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

import services.subscription
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.service_process import ServiceProcess
from services.subscription.store import consumers
from services.subscription.store.startup_checks import open_registry
from services.subscription.store.store import running_store
from tests.subscription.conftest import PortableStatements

SOURCES = Path(services.subscription.__file__).parent
SQLITE_ONLY = re.compile(r"sqlite|rowid|pragma|insert or |randomblob|\bglob\b|exec_driver_sql|sa\.text\(", re.IGNORECASE)
# Both import the one module that knows SQLite, by its name.
IMPORT = re.compile(r"^from services\.subscription\.store\.sqlite import .*$", re.MULTILINE)


def test_one_module_knows_what_only_sqlite_knows() -> None:
    """Migrations are written for the database that they change."""
    sources = [path for path in SOURCES.rglob("*.py") if "migrations" not in path.parts]
    knowing = {str(path.relative_to(SOURCES)) for path in sources if SQLITE_ONLY.search(IMPORT.sub("", path.read_text()))}
    assert knowing == {"store/sqlite.py"}


async def test_statements_are_compiled_for_postgresql_as_they_are_executed(
    settings: SubscriptionSettings, portable_statements: PortableStatements
) -> None:
    """All tests of the registry run under this check."""
    before = portable_statements.checked.copy()
    portable_statements.checked.clear()
    with open_registry(settings) as registry:
        async with running_store(registry, ServiceProcess("subscription")) as store:
            await store.write(partial(consumers.create, name="Shop"))
    checked = portable_statements.checked
    assert any(text.startswith("INSERT INTO consumers") for text in checked)
    assert any("FROM registry" in text for text in checked)
    checked |= before


def test_a_statement_that_only_sqlite_understands_is_found() -> None:
    with sa.create_engine("sqlite://").connect() as connection, pytest.raises(sa.exc.CompileError):
        connection.execute(sa.select(OnlySqlite()))


class OnlySqlite(sa.ColumnElement[str]):
    """An expression that is compiled for SQLite and for no other database."""

    inherit_cache = True


@compiles(OnlySqlite, "sqlite")
def _compiled(*_: object, **__: object) -> str:
    return "sqlite_version()"
