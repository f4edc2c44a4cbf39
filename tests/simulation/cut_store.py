"""Cut store: the ledger files of several workers. One file is open at a time, and checks read all of them."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.delivery.ledger.protocol import GroupCursor, rank
from services.delivery.ledger.rows import EndedRow, JobRow, RangeRow
from services.delivery.ledger.sqlite import cursor_groups, ledger_cut, ranges
from services.delivery.ledger.sqlite.day_tables import stored_days, table_of
from services.delivery.ledger.sqlite.ledger import SqliteLedger
from services.delivery.ledger.sqlite.ledger_files import ledger_file, numbers_there
from services.runtime.database import connect
from tests.simulation.ledger_template import TemplateStore, copy_template


def make_if_missing(path: Path, _migrations: Path) -> None:
    """Stand in for `migrate`: make a missing ledger. Any other counts as migrated."""
    if not path.exists():
        copy_template(path)


class CutStore(TemplateStore):
    """A `TemplateStore` of several files."""

    def __init__(self, database: Path) -> None:
        super().__init__(database)
        self._database = database
        self._files: list[sqlite3.Connection] = []
        self.workers = 1
        """How many files own slots."""

    def cut(self, workers: int, now_ms: int) -> None:
        """Divide the slots among another number of workers. No file may be open; `now_ms` is the wall clock's time."""
        with pytest.MonkeyPatch.context() as patch:
            # Migrations would take most of the time of a run.
            patch.setattr(ledger_cut, "migrate", make_if_missing)
            ledger_cut.ensure_cut(self._database, workers, now_ms)
        self.workers = workers

    def choose(self, number: int) -> None:
        """Let the next worker that starts have the file with a number."""
        self.path = ledger_file(self._database, number)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[SqliteLedger]:
        """See `LedgerStore.open`."""
        async with super().open() as ledger:
            with contextlib.ExitStack() as stack:
                self._files = list(self._opened(stack))
                yield ledger

    def _opened(self, stack: contextlib.ExitStack) -> Iterator[sqlite3.Connection]:
        for number in sorted(numbers_there(self._database)):
            yield stack.enter_context(contextlib.closing(connect(ledger_file(self._database, number), read_only=True)))

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query to all files that have its table."""
        found = list[tuple[Any, ...]]()
        for file in self._files:
            try:
                found += file.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table: done_" not in str(error):
                    raise
        return found

    def day_tables(self) -> list[str]:
        """See `SqliteStore.day_tables`."""
        return sorted({table_of(day) for file in self._files for day in stored_days(file)}, reverse=True)

    def cursor(self) -> GroupCursor:
        """Return the lowest cursor of all files."""
        return min((cursor_groups.first_cursor(file) for file in self._files[: self.workers]), key=lambda cursor: rank(cursor.shards[0]))

    def ranges(self) -> list[RangeRow]:
        """See `LedgerStore.ranges`."""
        return [row for file in self._files for row in ranges.ranges(file)]

    def ended(self, subscription_id: str) -> list[EndedRow]:
        """See `LedgerStore.ended`."""
        return [row for file in self._files for row in ranges.ended_of(file, subscription_id)]

    def jobs(self) -> list[JobRow]:
        """See `LedgerStore.jobs`."""
        return [row for file in self._files for row in ranges.jobs(file)]
