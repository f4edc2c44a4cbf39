"""Ledger cut: brings the ledger files in line with the number of workers that a start wants.

app, parent → [ledger_cut: slot_copy, ledger_map] → ledger

1. Copy: each file gets the slots that it will own, from the files that own them now.
2. Commit: one transaction in the first file writes the new map.
3. Settle: each file deletes what it does not own by the map, and notes the map's generation.

Law 1: until the commit the old map holds, and after it the new one. A crash at any step loses nothing: the next start, whatever number of
workers it wants, drops what was copied for a map that was never committed, or settles the map that was.
Law 2: files that do not fit together are refused by name, and nothing is changed.
Law 3: all files are locked meanwhile.
"""

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

from services.delivery.ledger.ledger_map import ONE_WORKER, FileState, LedgerMap, slots_of, why_unusable
from services.delivery.ledger.sqlite import slot_copy
from services.delivery.ledger.sqlite.day_tables import migrate_days
from services.delivery.ledger.sqlite.flush_writer import LOG_ID, set_meta
from services.delivery.ledger.sqlite.ledger import MIGRATIONS
from services.delivery.ledger.sqlite.ledger_files import MAP, days_in, ledger_file, numbers_there, peeked_map, remove_ledger, stored_map
from services.runtime import failpoints
from services.runtime.clock import SystemClock, unix_ms
from services.runtime.database import connect, explained, migrate, sole_owner
from services.runtime.database_layout import refuse_other_layout
from services.runtime.ids import WORKERS_MAX
from services.runtime.logs import logger
from services.runtime.service_process import StartError

_GENERATION, _ARRIVING = "generation", "arriving"
_CURE = "put back all ledger files of one moment, from one backup"


def ensure_cut(database: Path, workers: int, now_ms: int | None = None) -> list[Path]:
    """Bring the ledger files beside `database` in line with a number of workers; return the files, by the workers' numbers.

    `now_ms` is the wall clock's time, in ms since 1970; None: that of the system. It may read and write for minutes if the number changes,
    and holds the locks of all files meanwhile. Raises `StartError` if the files do not fit together, if another process has one of them
    open, or if one of them cannot be used.
    """
    if not 1 <= workers <= WORKERS_MAX:
        message = f"HOOKTIDE_DELIVERY_WORKERS={workers}: there can be 1 to {WORKERS_MAX} delivery workers"
        raise StartError(message)
    wanted = [ledger_file(database, number) for number in range(workers)]
    refuse_other_layout(database)
    there = numbers_there(database)
    if workers == 1 and there <= {0} and peeked_map(database) in {None, ONE_WORKER}:
        return wanted  # there was only ever one worker
    with contextlib.ExitStack() as locks:
        for number in sorted(there | set(range(workers))):
            locks.enter_context(sole_owner(ledger_file(database, number)))
        _LedgerCut(database, there, unix_ms(SystemClock()) if now_ms is None else now_ms).run(workers)
    return wanted


class _LedgerCut:
    """The work on one set of files, whose locks are held."""

    def __init__(self, database: Path, there: set[int], now_ms: int) -> None:
        self._database = database
        self._now_ms = now_ms
        self._there = there

    def run(self, workers: int) -> None:
        """Bring the files in line with a number of workers."""
        if self._there and 0 not in self._there:
            self._refuse(0, f"is missing, and {self._file(min(self._there)).name} is there")
        if not self._there:
            self._create(0)
        for number in self._there:
            self._migrate(number)
        ledgers, files = stored_map(self._database), self._states()
        if (found := why_unusable(ledgers, files)) is not None:
            self._refuse(*found)
        if not ledgers.is_settled:
            self._settle_all(ledgers)
        if workers == ledgers.workers == 1:
            self._drop_what_was_copied(ledgers)
            return
        if workers != ledgers.workers:
            logger().info(
                "ledger.cut", workers_before=ledgers.workers, workers=workers, effect="each worker gets the deliveries of its slots"
            )
        new = LedgerMap(ledgers.generation + 1, workers, is_settled=False)
        for number in range(workers):
            self._copy(number, ledgers, new)
        self._in_transaction(0, lambda connection: set_meta(connection, MAP, json.dumps(new)))
        failpoints.reached("ledger_cut.committed")
        self._settle_all(new)

    def _file(self, number: int) -> Path:
        return ledger_file(self._database, number)

    def _refuse(self, number: int, why: str) -> None:
        message = f"{self._file(number)} {why}; nothing was changed: {_CURE}"
        raise StartError(message)

    def _create(self, number: int) -> None:
        self._there.add(number)
        self._migrate(number)
        failpoints.reached("ledger_cut.created")

    def _migrate(self, number: int) -> None:
        path = self._file(number)
        refuse_other_layout(path)
        migrate(path, MIGRATIONS)
        migrate_days(path)

    def _states(self) -> dict[int, FileState]:
        return {number: self._state(number) for number in sorted(self._there)}

    def _state(self, number: int) -> FileState:
        with explained(self._file(number)), contextlib.closing(connect(self._file(number))) as connection:
            notes = dict(connection.execute("SELECT name, value FROM meta"))
            slots = frozenset(slot for (slot,) in connection.execute("SELECT slot FROM slots"))
        generation, arriving = (int(notes[name]) if name in notes else None for name in (_GENERATION, _ARRIVING))
        return FileState(generation, arriving, slots, notes.get(LOG_ID, ""))

    # The steps; each may be repeated

    def _drop_what_was_copied(self, ledgers: LedgerMap) -> None:
        """Drop what a cut has copied that was never committed."""
        for number, state in self._states().items():
            if state.arriving is not None:
                self._settle(number, ledgers)
        self._remove_unused(ledgers)

    def _copy(self, number: int, ledgers: LedgerMap, new: LedgerMap) -> None:
        """Copy into a file the slots that it will own and does not own yet."""
        if number not in self._there:
            self._create(number)
        owned = slots_of(number, ledgers.workers)
        if self._state(number).arriving is not None or number >= ledgers.workers:
            self._in_transaction(number, lambda connection: slot_copy.delete_slots(connection, owned))
            failpoints.reached("ledger_cut.emptied")
        for source in range(ledgers.workers):
            if source != number:
                self._copy_from(source, number, ledgers, new)
        self._in_transaction(number, lambda connection: set_meta(connection, _ARRIVING, str(new.generation)))
        failpoints.reached("ledger_cut.copied")

    def _copy_from(self, source: int, number: int, ledgers: LedgerMap, new: LedgerMap) -> None:
        wanted, there = slots_of(number, new.workers), slots_of(source, ledgers.workers)
        moving = range(max(wanted.start, there.start), min(wanted.stop, there.stop))

        def copy(connection: sqlite3.Connection) -> None:
            if moving:
                # From here on the next start knows that there may be something to delete, however this start ends.
                set_meta(connection, _ARRIVING, str(new.generation))
                slot_copy.copy_slots(connection, moving, self._now_ms)
            if number == 0 and source >= new.workers:
                slot_copy.copy_outbox(connection)

        if moving or (number == 0 and source >= new.workers):
            self._in_transaction(number, copy, attached=self._file(source))
            failpoints.reached("ledger_cut.copying")

    def _settle_all(self, ledgers: LedgerMap) -> None:
        """Bring all files in line with a map that is committed."""
        for number in sorted(self._there):
            self._settle(number, ledgers)
            failpoints.reached("ledger_cut.settling")
        self._in_transaction(0, lambda connection: set_meta(connection, MAP, json.dumps(ledgers._replace(is_settled=True))))
        failpoints.reached("ledger_cut.settled")
        self._remove_unused(ledgers)
        for number in range(ledgers.workers):
            if self._state(number).slots != frozenset(slots_of(number, ledgers.workers)):
                self._refuse(number, "does not have the slots that it must have")

    def _settle(self, number: int, ledgers: LedgerMap) -> None:
        owned = slots_of(number, ledgers.workers)
        has_others = self._state(number).slots != frozenset(owned)

        def settle(connection: sqlite3.Connection) -> None:
            if has_others:
                slot_copy.delete_slots(connection, owned)
            if not owned:
                connection.execute("DELETE FROM outbox")
            slot_copy.arrange_groups(connection)
            set_meta(connection, _GENERATION, str(ledgers.generation))
            connection.execute("DELETE FROM meta WHERE name = ?", (_ARRIVING,))

        self._in_transaction(number, settle)

    def _remove_unused(self, ledgers: LedgerMap) -> None:
        """Remove the files that own no slots and have no finished deliveries."""
        for number in sorted(self._there):
            if number >= ledgers.workers and not days_in(self._file(number)):
                remove_ledger(self._file(number))
                self._there.remove(number)

    def _in_transaction(self, number: int, step: Callable[[sqlite3.Connection], None], *, attached: Path | None = None) -> None:
        path = self._file(number)
        with explained(path), contextlib.closing(connect(path)) as connection:
            if attached is not None:
                connection.execute(f"ATTACH DATABASE ? AS {slot_copy.SOURCE}", (str(attached),))
            connection.execute("BEGIN IMMEDIATE")
            try:
                step(connection)
                failpoints.reached("ledger_cut.before_commit")
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
