"""Ledger template: a ledger whose schema is made once a process and copied for each run, since migrations take longer than a short run."""

import contextlib
import functools
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from services.delivery.ledger.sqlite.ledger import MIGRATIONS, SqliteLedger
from services.runtime.database import connect, migrate
from services.runtime.ids import slot_of
from tests.delivery.ledger.stores import SqliteStore


class TemplateStore(SqliteStore):
    """A `SqliteStore` that begins as a copy of an empty ledger."""

    is_open = False
    """Whether the ledger can be read."""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[SqliteLedger]:
        """See `LedgerStore.open`; no lock is taken, as no other process knows the file."""
        if not self.path.exists():
            copy_template(self.path)
        ledger = SqliteLedger(self.path)
        # The log of a run stays short, and handing over to the checkpoint thread takes longer than a commit.
        ledger._checkpoints._COMMITS_BETWEEN = 1 << 30  # noqa: SLF001 - the ledger needs no setting for this
        try:
            with contextlib.closing(connect(self.path, read_only=True)) as self._reading:
                self.is_open = True
                try:
                    yield ledger
                finally:
                    self.is_open = False
        finally:
            await ledger.close()

    def position_of(self, subscription_id: str) -> int:
        """Return the position up to which a subscription's slot is recorded, in whole or in part."""
        query = "SELECT json_extract(positions, '$[0]') FROM slots JOIN groups USING (group_id) WHERE slot = ?"
        return max(int(position) for (position,) in self.rows(query, slot_of(subscription_id)))


def copy_template(path: Path) -> None:
    """Make a ledger that is empty."""
    shutil.copy(_template(), path)


@functools.cache
def _template() -> Path:
    directory = tempfile.TemporaryDirectory(prefix="hooktide-template-")
    path = Path(directory.name) / "delivery.db"
    migrate(path, MIGRATIONS)
    _kept.append(directory)
    return path


_kept: list[tempfile.TemporaryDirectory[str]] = []
