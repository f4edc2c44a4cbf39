"""Cut ledgers: ledger files that have rows of every kind, and the contents of all files together."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from services.delivery.ledger.protocol import Flush
from services.delivery.ledger.rows import OPEN_COLUMNS, EndedRow, JobRow, LaneRow, NoticeRow, RangeRow, SetAsideRow
from services.delivery.ledger.sqlite.day_tables import create_day, day_of, stored_days, table_of
from services.delivery.ledger.sqlite.ledger import open_ledger
from services.delivery.ledger.sqlite.ledger_files import ledger_file, numbers_there
from services.delivery.model import State
from services.runtime.database import connect
from tests.delivery.ledger.deliveries import NOW_MS, cursor_at, finished, record, unfinished

# One subscription in each sixteenth of the slots.
DIGITS = "0123456789abcdef"
LOG_ID = "a log"


async def fill(path: Path) -> None:
    """Write rows of every kind for each subscription into a ledger. The log no longer holds the events of some of them."""
    async with open_ledger(path) as ledger:
        await ledger.take_lease("one")
        await ledger.set_log_id(LOG_ID)
        opened = [unfinished(number, digit, due_ms=NOW_MS * (number % 2)) for number, digit in enumerate(DIGITS * 2, 1)]
        ids = ["sub_" + digit * 32 for digit in DIGITS]
        flush = Flush(
            opened,
            finished=[finished(40 + number, digit, day=number % 2) for number, digit in enumerate(DIGITS)],
            cursors=[cursor_at(100, "evt_x")],
            written_ms=NOW_MS,
            ranges=[RangeRow(each, "", 0, (90,), None, NOW_MS, "con_1") for each in ids],
            ended=[EndedRow(each, "", State.EXHAUSTED, (10,), (20,), 3, NOW_MS, "con_1") for each in ids],
            jobs=[JobRow(each, "start", "running", (5,), None, 1, 2, 3) for each in ids],
            lanes=[LaneRow(each, 7, NOW_MS + 1, 2, 0, 4, NOW_MS - 5, 1.5) for each in ids],
            set_aside=[SetAsideRow(1, 0, 99, "evt_bad", "crashed", NOW_MS)],
            notices=[NoticeRow("ntc_0", "con_1", b"a notice", NOW_MS)],
        )
        await ledger.flush(flush)
        await ledger.keep_copies([record(1), record(2), record(3)])
        await ledger.repair(LOG_ID, [cursor_at(100, "evt_x")], {0: 30})


@contextlib.contextmanager
def changing(path: Path) -> Iterator[sqlite3.Connection]:
    """Change a ledger file that no service has open."""
    with contextlib.closing(connect(path)) as connection:
        yield connection


def stand_at(path: Path, position: int, through: str = "") -> None:
    """Let the first group of a file stand elsewhere in the log."""
    with changing(path) as connection:
        values = (json.dumps([position]), json.dumps([f"evt_{position}"]), json.dumps([through]))
        connection.execute("UPDATE groups SET positions = ?, events = ?, through = ? WHERE group_id = 1", values)


def finish_in(path: Path, number: int) -> None:
    """Let a file have a finished delivery of event `number`."""
    row = finished(number)
    day = day_of(row.finished_ms)
    with changing(path) as connection:
        create_day(connection, day)
        connection.execute(f"INSERT INTO {table_of(day)} VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608 - a table of ours


def jump_clock(path: Path, ms: int) -> None:
    """Let a file's clock be behind the wall clock by `ms` more, as after a jump of the wall clock."""
    with changing(path) as connection:
        connection.execute(
            "INSERT INTO meta VALUES ('clock_jumped_ms', ?) ON CONFLICT DO UPDATE SET value = value + excluded.value", (str(ms),)
        )


def held(database: Path) -> dict[str, list[object]]:
    """Return what the ledger files hold together, with due times by the wall clock, and the place of each slot."""
    found: dict[str, list[object]] = {name: [] for name in ("open", "owed", "ended", "jobs", "lanes", "outbox", "done", "places", "copies")}
    for number in sorted(numbers_there(database)):
        with contextlib.closing(connect(ledger_file(database, number), read_only=True)) as connection:
            for name, rows in _held_in(connection).items():
                found[name] += rows
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def _held_in(connection: sqlite3.Connection) -> dict[str, list[object]]:
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    jumped = int(meta.get("clock_jumped_ms", 0))
    columns = ", ".join(column for column in OPEN_COLUMNS if column not in {"position", "due_ms"})
    rows = connection.execute(f"SELECT {columns}, iif(due_ms = 0, 0, due_ms + ?), max(position, 0) FROM open", (jumped,)).fetchall()  # noqa: S608 - constants
    lanes = connection.execute("SELECT * FROM lanes").fetchall()
    copies = "SELECT open.id, substr(record, -2) FROM open JOIN payloads USING (shard, position)"
    places = "SELECT slot, positions, events, through FROM slots JOIN groups USING (group_id)"
    tables = [table_of(day) for day in stored_days(connection)]
    return {
        "open": list(rows),
        **{name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in ("owed", "ended", "jobs", "outbox")},  # noqa: S608 - ours
        "lanes": [(*row[:2], row[2] + jumped, row[3], row[4], row[5], row[6] + jumped, row[7]) for row in lanes],
        "done": [row for table in tables for row in connection.execute(f"SELECT * FROM {table}")],  # noqa: S608 - a table of ours
        "places": connection.execute(places).fetchall(),
        "copies": connection.execute(copies).fetchall(),
    }


def slots_with_rows(path: Path) -> set[int]:
    """Return the slots for which a file has rows, except finished deliveries."""
    with contextlib.closing(connect(path, read_only=True)) as connection:
        found = {slot for (slot,) in connection.execute("SELECT slot FROM open UNION SELECT slot FROM slots")}
        for table in ("owed", "ended", "jobs", "lanes"):
            found |= {int(id_[-2:], 16) for (id_,) in connection.execute(f"SELECT subscription_id FROM {table}")}  # noqa: S608 - constants
        return found


def groups_of(path: Path) -> list[tuple[int, int, int]]:
    """Return each group of a file, its position, and how many slots it has."""
    with contextlib.closing(connect(path, read_only=True)) as connection:
        query = (
            "SELECT group_id, json_extract(positions, '$[0]'), count(slot) FROM groups LEFT JOIN slots USING (group_id) GROUP BY group_id"
        )
        return connection.execute(query).fetchall()
