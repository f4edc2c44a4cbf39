from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from services.runtime.configuration.settings import SubscriptionSettings
from tests.support.system.registry import Client, registry_settings, served


@pytest.fixture
def settings(tmp_path: Path) -> SubscriptionSettings:
    """The settings of a registry in a directory of its own, on free ports."""
    # Tests make many wrong calls in a row.
    return registry_settings(tmp_path, HOOKTIDE_AUTHENTICATION_FAILURES_BURST="1000")


@pytest.fixture
async def client(settings: SubscriptionSettings) -> AsyncIterator[Client]:
    """A client of a registry that runs for one test."""
    async with served(settings) as connected:
        yield connected


@dataclass(frozen=True, slots=True)
class PortableStatements:
    """Compiles every statement that SQLAlchemy executes for PostgreSQL as well, each once."""

    checked: set[str] = field(default_factory=set)
    """The statements in the form of the present database."""

    def check(self, _connection: object, _cursor: object, text: str, _parameters: object, context: Any, _many: object) -> None:
        """Raise `CompileError` if a statement cannot be compiled for PostgreSQL. Statements that are given as text are left alone."""
        if context.compiled is not None and text not in self.checked:
            context.compiled.statement.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]  # the dialect is untyped
            self.checked.add(text)


@pytest.fixture(scope="package", autouse=True)
def portable_statements() -> Iterator[PortableStatements]:
    """Every test of the registry fails if the registry executes a statement that only SQLite understands."""
    statements = PortableStatements()
    sa.event.listen(sa.Engine, "before_cursor_execute", statements.check)
    yield statements
    sa.event.remove(sa.Engine, "before_cursor_execute", statements.check)
