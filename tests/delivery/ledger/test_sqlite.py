"""SQLite ledger: its file and lock, its tables of days, and how much each of its steps does."""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.delivery.ledger.protocol import Flush, GroupCursor, Ledger, ShardCursor
from services.delivery.ledger.sqlite import queries, retention
from services.delivery.ledger.sqlite.day_tables import day_of
from services.delivery.ledger.sqlite.ledger import open_ledger
from services.eventlog.record import ShardPosition
from services.runtime.consumer_scope import EVERYONE, OwnConsumer, Scope
from services.runtime.database import connect, database_path, used_bytes
from services.runtime.database_files import FileGoneError
from services.runtime.listing_reader import Budget
from services.runtime.service_process import StartError
from tests.delivery.ledger.deliveries import ALL, DAY_MS, NOW_MS, cursor_at, delivery, finished, listed, record, unfinished
from tests.delivery.ledger.stores import SqliteStore

TODAY, YESTERDAY, TOMORROW = (f"done_{day_of(NOW_MS + days * DAY_MS)}" for days in (0, -1, 1))


@pytest.fixture
def connection(store: SqliteStore, ledger: Ledger) -> Iterator[sqlite3.Connection]:
    """A connection of the test's own to the ledger's file."""
    assert ledger
    with contextlib.closing(connect(store.path)) as opened:
        yield opened


# The file


async def test_one_process_at_a_time_has_the_ledger_open(tmp_path: Path) -> None:
    """The lock also holds for another name of the file."""
    path, link = tmp_path / "delivery.db", tmp_path / "link.db"
    link.symlink_to(path)
    async with open_ledger(path):
        for name in (path, database_path(f"sqlite:///{link}", tmp_path, "delivery")):
            with pytest.raises(StartError, match="in use by another process"):
                async with open_ledger(name):
                    pass
    async with open_ledger(path):
        pass


async def test_a_ledger_whose_file_is_replaced_records_nothing(store: SqliteStore, ledger: Ledger) -> None:
    await ledger.flush(Flush(finished=[finished(1)]))
    away = store.path.with_name("away.db")
    store.path.rename(away)
    shutil.copy(away, store.path)
    with pytest.raises(FileGoneError):
        await ledger.flush(Flush(finished=[finished(2)]))


async def test_a_file_of_another_service_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "delivery.db"
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE something (id INTEGER)")
    foreign.close()
    with pytest.raises(StartError, match="not of this service"):
        async with open_ledger(path):
            pass


async def test_a_flush_with_a_row_that_cannot_be_written_writes_nothing(store: SqliteStore, ledger: Ledger) -> None:
    """Neither the other rows nor the cursor are written."""
    broken = finished(3)._replace(attempt_count="many")  # type: ignore[arg-type]  # what the database refuses
    with pytest.raises(sqlite3.IntegrityError):
        await ledger.flush(Flush([unfinished(1)], finished=[finished(2), broken], cursors=[cursor_at(65)]))
    assert await listed(ledger) == []
    assert store.cursor() == cursor_at(0)
    assert store.day_tables() == []
    await ledger.flush(Flush(finished=[finished(2)]))
    assert await listed(ledger) == [finished(2)]


# Cursor groups


async def test_all_slots_are_in_one_group_at_first(store: SqliteStore, ledger: Ledger) -> None:
    assert (await ledger.take_lease("worker")).groups == [cursor_at(0)]
    assert store.rows("SELECT slot, group_id FROM slots ORDER BY slot") == [(slot, 1) for slot in range(256)]


async def test_a_flush_moves_a_group_only_in_the_shards_that_it_names(
    store: SqliteStore, ledger: Ledger, connection: sqlite3.Connection
) -> None:
    """The cursor of a log with several shards has the same form."""
    connection.execute("""UPDATE groups SET positions = '[3, 4]', events = '["evt_a", "evt_b"]', through = '["", "sub_b"]'""")
    moved = ShardCursor(1, 9, "evt_c", "sub_c")
    await ledger.flush(Flush(cursors=[GroupCursor(1, (moved,))]))
    assert store.cursor() == GroupCursor(1, (ShardCursor(0, 3, "evt_a", ""), moved))
    assert await ledger.recorded_place() == [ShardPosition(0, 3, "evt_a"), ShardPosition(1, 8, following_id="evt_c")]


# Tables of days


async def test_finished_deliveries_stand_by_the_day_of_their_end(store: SqliteStore, ledger: Ledger) -> None:
    await ledger.flush(Flush(finished=[finished(1), finished(2, day=-1), finished(3)._replace(finished_ms=NOW_MS + DAY_MS - 1)]))
    await ledger.flush(Flush(finished=[finished(4, day=1)]))
    assert store.day_tables() == [TOMORROW, TODAY, YESTERDAY] == ["done_20270117", "done_20270116", "done_20270115"]
    assert [len(store.rows(f"SELECT * FROM {table}")) for table in (TOMORROW, TODAY, YESTERDAY)] == [1, 2, 1]  # noqa: S608 - our tables


async def test_days_before_the_first_to_be_kept_go_in_short_steps(
    store: SqliteStore, ledger: Ledger, connection: sqlite3.Connection
) -> None:
    """However large a day is, no step keeps the writer busy for long; the steps add up to the day's rows."""
    await ledger.flush(Flush(finished=[finished(number, day=-2) for number in range(5000)]))
    await ledger.flush(Flush(finished=[finished(number, day=-1) for number in range(10)] + [finished(1, "b")]))
    kept_from, steps = day_of(NOW_MS - DAY_MS), list[int]()
    while (step := retention.drop_days(connection, kept_from)) is not None:
        steps.append(step)
    assert sum(steps) == 5000
    assert max(steps) <= 2000
    assert store.day_tables() == [TODAY, YESTERDAY]
    assert await ledger.find(EVERYONE, finished(9).id) == finished(9, day=-1)


async def test_beyond_its_size_the_oldest_days_go_first_and_the_newest_table_stays(
    store: SqliteStore, ledger: Ledger, connection: sqlite3.Connection
) -> None:
    for age in (2, 1, 0):
        await ledger.flush(Flush(finished=[finished(3000 * age + number, day=-age) for number in range(3000)]))
    bytes_max, steps = used_bytes(connection) // 2, list[int]()
    while (step := retention.shrink(connection, bytes_max)) is not None:
        steps.append(step)
    assert used_bytes(connection) <= bytes_max
    assert max(steps) <= 2000
    assert store.day_tables() == [TODAY, YESTERDAY]
    assert await ledger.find(EVERYONE, delivery(2999).id) is not None
    while retention.shrink(connection, 1) is not None:
        pass
    assert store.day_tables() == [TODAY]
    await ledger.flush(Flush(finished=[finished(1)]))


# How much a step examines


async def test_copies_are_looked_through_in_bounded_steps(ledger: Ledger, connection: sqlite3.Connection) -> None:
    """However many copies are still needed, one step keeps the writer busy only for a moment."""
    events = [record(number)._replace(shard=number % 2) for number in range(1, 5001)]
    await ledger.flush(Flush([unfinished(number, shard=number % 2) for number in range(1, 5001) if number not in {1999, 3000}]))
    await ledger.keep_copies(events)
    after: tuple[int, int] | None = (-1, 0)
    dropped, steps = 0, 0
    while after is not None:
        count, after = retention.drop_copies(connection, after)
        dropped, steps = dropped + count, steps + 1
    assert (dropped, steps) == (2, 3)
    assert len(await ledger.copies([ShardPosition(number % 2, number) for number in range(1, 5001)])) == 4998


@pytest.mark.parametrize("scope", [EVERYONE, OwnConsumer("con_" + "c" * 32)], ids=["everyone", "own"])
async def test_a_listing_examines_a_bounded_number_of_rows_a_page(
    ledger: Ledger, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, scope: Scope
) -> None:
    """A page may be empty and still name a next one; a page that is out of time ends after one step. SQLite's machine steps are counted."""
    monkeypatch.setattr(queries, "_STEPS_MAX", 4)
    await ledger.flush(Flush(finished=[finished(number, day=number % 3) for number in range(1, 30_000)]))
    await ledger.flush(Flush(finished=[finished(0, event_type="rare")]))
    listing = ALL._replace(event_type="rare", scope=scope)

    def counted(before_id: bytes | None, budget: Budget) -> tuple[int, int, bytes | None]:
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        connection.set_progress_handler(step, 1000)
        found, next_id = queries.page(connection, listing._replace(limit=10, before_id=before_id), budget)
        connection.set_progress_handler(None, 0)
        return steps, len(found), next_id

    unhurried = [counted(None, Budget(3600.0))]
    while (next_id := unhurried[-1][2]) is not None:
        unhurried.append(counted(next_id, Budget(3600.0)))
    assert [count for _, count, _ in unhurried] == [0, 0, 1]
    whole = sum(steps for steps, *_ in unhurried)
    assert max(steps for steps, *_ in unhurried) < whole / 2
    hurried_steps, hurried_count, hurried_next = counted(None, Budget(0.0))
    assert (hurried_count, hurried_next is None) == (0, False)
    assert hurried_steps < whole / 5


async def test_a_listing_by_event_looks_at_nothing_else(ledger: Ledger, connection: sqlite3.Connection) -> None:
    """A delivery's id begins with its event's time, so the query reads only ids of that time."""
    await ledger.flush(Flush(finished=[finished(number) for number in range(30_000)]))
    assert queries.page(connection, ALL._replace(event_id=finished(7).event_id), Budget(0.0)) == ([finished(7)], None)
