"""Filtered read: what only the SQLite engine promises."""

import asyncio
import sqlite3
import threading
from pathlib import Path

from services.eventlog.filtered_read import ReadQuery
from services.eventlog.record import ShardPosition
from services.eventlog.sqlite.filtered_read import read_page
from services.runtime.database import connect
from services.runtime.listing_reader import Budget
from tests.support.event_logs import TIMEOUT_S, Reading, appended, everything, new_event, new_events, opened, released

BEGINNING = [ShardPosition(0, 0)]


def statements(connection: sqlite3.Connection, query: ReadQuery) -> list[str]:
    """Return the statements of one page, with their values."""
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    read_page(connection, query, "", Budget())
    connection.set_trace_callback(None)
    return seen


async def test_a_page_reads_the_rows_of_matching_events_only(tmp_path: Path) -> None:
    """Whatever the filter is, SQLite searches the narrow index, and sorts nothing."""
    async with opened(tmp_path / "ingest.db") as it:
        await appended(it.log, new_events(range(3)))
        reading = connect(tmp_path / "ingest.db", read_only=True)
        for query in (
            ReadQuery(BEGINNING),
            ReadQuery(BEGINNING, types=["order.created", "a", "b.*"], source="/shop", audiences=["", "con_1"]),
        ):
            (selecting,) = [each for each in statements(reading, query) if "INDEXED BY" in each]
            ((*_, plan),) = reading.execute(f"EXPLAIN QUERY PLAN {selecting}").fetchall()
            assert plan == "SEARCH events USING INDEX events_by_filter (position>? AND position<?)"
        reading.close()


async def test_a_page_whose_time_is_over_ends_after_a_step_and_the_next_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path / "ingest.db") as it:
        await appended(it.log, [new_event(number)._replace(type="rare" if number % 9000 == 0 else "often") for number in range(20_000)])
        reading = connect(tmp_path / "ingest.db", read_only=True)
        at, found, pages = 0, [], 0
        while at < 20_000:
            page = read_page(reading, ReadQuery([ShardPosition(0, at)], types=["rare"]), "", Budget(0.0))
            assert page.scanned_through[0].position > at
            at, pages = page.scanned_through[0].position, pages + 1
            found += [record.position for record in page.records]
        assert found == [1, 9001, 18_001]
        assert pages == 3
        reading.close()


async def test_a_trim_between_two_statements_of_a_page_is_not_seen(tmp_path: Path) -> None:
    """A page is one state of the log: what it holds and what it says is available agree."""
    async with opened(tmp_path / "ingest.db") as it:
        receipts = await appended(it.log, new_events(range(10)))
        await it.log.release(released(receipts[-1].position))
        reading = connect(tmp_path / "ingest.db", read_only=True)
        trimming = connect(tmp_path / "ingest.db")

        def trim(statement: str) -> None:
            if "INDEXED BY" in statement:
                trimming.execute("DELETE FROM events WHERE position <= 5")
                trimming.execute("UPDATE meta SET value = '5' WHERE name = 'trimmed_to'")

        reading.set_trace_callback(trim)
        page = read_page(reading, ReadQuery(BEGINNING), "", Budget())
        reading.set_trace_callback(None)
        assert (len(page.records), page.first_available) == (10, [ShardPosition(0, 1)])
        page = read_page(reading, ReadQuery(BEGINNING), "", Budget())
        assert (len(page.records), page.first_available) == (5, [ShardPosition(0, 6)])
        reading.close()
        trimming.close()


async def test_filtered_reads_and_followers_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with opened(tmp_path / "ingest.db") as it, asyncio.timeout(TIMEOUT_S):
        await appended(it.log, new_events(range(5)))
        release = threading.Event()
        busy = asyncio.ensure_future(it.log.run_query(lambda _connection: release.wait(TIMEOUT_S)))
        assert len((await it.log.read(ReadQuery(BEGINNING))).records) == 5
        release.set()
        assert await busy

        release.clear()
        busy = asyncio.ensure_future(it.log._filtered.read("", lambda _connection: release.wait(TIMEOUT_S)))  # noqa: SLF001 - holds the thread
        waiting = asyncio.ensure_future(it.log.read(ReadQuery(BEGINNING)))
        async with it.log.follow(everything()) as following:
            reading = Reading(following)
            assert len(await reading.take(5)) == 5
            await appended(it.log, [new_event(9)])
            assert len(await reading.take(1)) == 1
        assert not waiting.done()
        release.set()
        assert await busy
        assert len((await waiting).records) == 6
