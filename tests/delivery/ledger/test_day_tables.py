"""Day tables: one template makes them, their version is stored, and a migration treats all of them."""

import asyncio
import contextlib
import signal
import sqlite3
import sys
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from services.delivery.ledger.protocol import Flush
from services.delivery.ledger.sqlite import day_tables
from services.delivery.ledger.sqlite.day_tables import TEMPLATE, day_of
from services.runtime.service_process import StartError
from tests.delivery.ledger.day_migration import NEXT_TEMPLATE
from tests.delivery.ledger.deliveries import DAY_MS, NOW_MS, finished, listed, unfinished
from tests.delivery.ledger.stores import SqliteStore

THREE_DAYS = [finished(number, day=-number % 3) for number in range(30)]


async def fill(store: SqliteStore) -> None:
    """Make a ledger with finished deliveries of three days."""
    async with store.open() as ledger:
        await ledger.take_lease("one")
        await ledger.flush(Flush([unfinished(99)], finished=THREE_DAYS))
        assert len(store.day_tables()) == 3


def schema(store: SqliteStore, table: str) -> set[str]:
    """Return the columns and indexes of a table."""
    columns = [f"{name} {kind}" for _, name, kind, *_ in store.rows(f"PRAGMA table_info({table})")]
    return {*columns, *(name.replace(table, "") for _, name, *_ in store.rows(f"PRAGMA index_list({table})"))}


@pytest.mark.parametrize(("time_ms", "day"), [(0, "19700101"), (DAY_MS - 1, "19700101"), (NOW_MS, "20270116"), (-1, "19691231")])
def test_days_are_those_of_utc(time_ms: int, day: str) -> None:
    assert day_of(time_ms) == day


async def test_the_version_of_each_day_is_stored(store: SqliteStore) -> None:
    """A day that is dropped is listed no more."""
    await fill(store)
    async with store.open() as ledger:
        await ledger.take_lease("two")
        days = [day_of(NOW_MS + days * DAY_MS) for days in range(3)]
        assert store.rows("SELECT day, version FROM days ORDER BY day") == [(day, TEMPLATE.version) for day in days]
        await ledger.trim(before_ms=NOW_MS + DAY_MS, bytes_max=1 << 40)
        assert store.rows("SELECT day FROM days ORDER BY day") == [(day,) for day in days[1:]]


@pytest.mark.parametrize("commits", [1, 2, 3, 6], ids=["in the first", "after the first", "in the second", "after the last"])
async def test_a_migration_that_is_killed_half_way_is_finished_by_the_next_start(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """All three days are migrated, nothing is lost, and a migrated table is like a new one."""
    await fill(store)
    module = "tests.delivery.ledger.day_migration"
    async with asyncio.timeout(60):
        killed = await asyncio.create_subprocess_exec(sys.executable, "-m", module, str(store.path), str(commits))
        assert await killed.wait() == -signal.SIGKILL
    with contextlib.closing(sqlite3.connect(store.path)) as left:
        versions = [version for (version,) in left.execute("SELECT version FROM days ORDER BY day")]
    assert versions == [NEXT_TEMPLATE.version] * (commits // 2) + [TEMPLATE.version] * (3 - commits // 2)

    monkeypatch.setattr(day_tables, "TEMPLATE", NEXT_TEMPLATE)
    async with store.open() as ledger:
        await ledger.take_lease("two")
        await ledger.flush(Flush(finished=[finished(200, day=5)]))
        assert await listed(ledger) == [finished(200, day=5), unfinished(99), *THREE_DAYS[::-1]]
        assert store.rows("SELECT DISTINCT version FROM days") == [(NEXT_TEMPLATE.version,)]
        new, *migrated = store.day_tables()
        assert len(migrated) == 3
        assert {"region TEXT", "_by_subscription", "_by_consumer"} <= schema(store, new)
        assert all(schema(store, table) == schema(store, new) for table in migrated)


async def test_a_migration_is_made_step_by_step(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is several versions behind takes the steps of all versions between, in order."""
    await fill(store)
    steps = {1: ("ALTER TABLE {table} ADD COLUMN second TEXT",), 2: ("UPDATE {table} SET second = event_type",), 3: ()}
    monkeypatch.setattr(day_tables, "TEMPLATE", replace(TEMPLATE, version=4, upgrades=steps))
    with capture_logs() as lines:
        async with store.open():
            pass
    assert [(line["event"], line["day"], line["version"]) for line in lines] == [
        ("ledger.day_migrated", day_of(NOW_MS + days * DAY_MS), 4) for days in range(3)
    ]
    async with store.open():
        assert {row for table in store.day_tables() for row in store.rows(f"SELECT DISTINCT second FROM {table}")} == {("order.created",)}  # noqa: S608 - ours


async def test_a_step_that_fails_leaves_its_day_as_it_was(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(store)
    broken = replace(NEXT_TEMPLATE, upgrades={1: ("ALTER TABLE {table} ADD COLUMN second TEXT", "UPDATE {table} SET third = 1")})
    monkeypatch.setattr(day_tables, "TEMPLATE", broken)
    with pytest.raises(StartError, match="no such column: third"):
        async with store.open():
            pass
    monkeypatch.undo()
    async with store.open() as ledger:
        assert await listed(ledger) == [unfinished(99), *THREE_DAYS[::-1]]
        assert all("second TEXT" not in schema(store, table) for table in store.day_tables())


async def test_days_of_a_newer_version_are_refused(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_tables, "TEMPLATE", NEXT_TEMPLATE)
    await fill(store)
    monkeypatch.undo()
    with pytest.raises(StartError, match="written by a newer version of Hooktide"):
        async with store.open():
            pass
