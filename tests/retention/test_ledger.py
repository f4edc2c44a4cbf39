"""Ledger: the steps that keep the ledger and its copies of events within limits."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from services.delivery.ledger import sqlite_queries, sqlite_trims
from services.delivery.ledger.rows import DoneRow, OpenRow, kept_record
from services.delivery.ledger.sqlite import Cursor, Flush, Ledger, day_of, open_ledger
from services.delivery.worker.recorder import Recorder
from services.delivery.worker.retention_loop import RetentionLimits, RetentionLoop
from services.eventlog.record import PARTITIONS, Place, Record
from services.eventlog.sqlite.log import SqliteEventLog
from services.runtime.clock import SystemClock
from services.runtime.consumer_scope import EVERYONE
from services.runtime.database import used_bytes
from tests.delivery.dispatch.dispatching import Dispatching
from tests.eventlog.logs import appended, new_events, opened

DAY_MS = 86_400_000
TODAY_MS = 20_000 * DAY_MS


@pytest_asyncio.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with open_ledger(tmp_path / "delivery.db") as running:
        await running.lease("a test")
        yield running


def done(index: int, finished_ms: int) -> DoneRow:
    """Return the row of a delivery that ended at a time."""
    return DoneRow(
        id=finished_ms.to_bytes(6, "big") + index.to_bytes(10, "big"),
        event_id=f"evt_{index:032x}",
        partition=index % PARTITIONS,
        position=1,
        subscription_id="sub_" + "0" * 32,
        consumer_id="con_" + "0" * 32,
        event_type="order.created",
        accepted_ms=finished_ms,
        revision=1,
        state=2,
        attempt_count=1,
        attempts=b'[[0,1,1,200,"",""]]',
        last_status=200,
        finished_ms=finished_ms,
    )


def unfinished(index: int, place: Place) -> OpenRow:
    """Return the row of an unfinished delivery of the event at a place."""
    return OpenRow(
        id=index.to_bytes(16, "big"),
        event_id=place.event_id,
        partition=place.partition,
        position=place.position,
        subscription_id="sub_" + "0" * 32,
        consumer_id="con_" + "0" * 32,
        event_type="order.created",
        accepted_ms=TODAY_MS,
        revision=1,
        body_mode="structured",
        encoder=1,
        attempt_count=0,
        attempts=b"[]",
        last_status=0,
        due_ms=0,
    )


async def drop_days(ledger: Ledger, before_day: str) -> list[int]:
    """Drop all days before a day; return how many rows and tables each step dropped."""
    steps = []
    while step := await ledger.write(sqlite_trims.drop_days, before_day):
        steps.append(step)
    return steps


async def days(ledger: Ledger) -> list[str]:
    return await ledger.read(sqlite_queries.day_tables)


async def test_days_before_the_first_to_be_kept_go_in_short_steps(ledger: Ledger) -> None:
    """However large a day is, no step keeps the writer busy for long; the steps add up to the day's rows and its table."""
    await ledger.commit(Flush(finished=[done(index, TODAY_MS - 2 * DAY_MS) for index in range(5000)]))
    await ledger.commit(Flush(finished=[done(index, TODAY_MS - DAY_MS) for index in range(10)] + [done(1, TODAY_MS)]))
    kept = [f"done_{day_of(TODAY_MS)}", f"done_{day_of(TODAY_MS - DAY_MS)}"]
    steps = await drop_days(ledger, day_of(TODAY_MS - DAY_MS))
    assert sum(steps) == 5001
    assert max(steps) <= 2000
    assert await days(ledger) == kept
    assert await ledger.read(sqlite_queries.find, EVERYONE, done(9, TODAY_MS - DAY_MS).id) is not None
    assert await drop_days(ledger, day_of(TODAY_MS - DAY_MS)) == []


async def test_a_delivery_may_end_on_a_day_that_was_dropped_already(ledger: Ledger) -> None:
    """Its flush had to wait for room on the disk, or the clock went back: it is recorded, and dropped by the next check."""
    yesterday = TODAY_MS - DAY_MS
    await ledger.commit(Flush(finished=[done(1, yesterday)]))
    await drop_days(ledger, day_of(TODAY_MS))
    await ledger.commit(Flush(finished=[done(2, yesterday)]))
    assert await ledger.read(sqlite_queries.find, EVERYONE, done(2, yesterday).id) is not None
    assert sum(await drop_days(ledger, day_of(TODAY_MS))) == 2
    assert await days(ledger) == []


async def test_beyond_its_size_the_oldest_rows_go_first_and_todays_table_stays(ledger: Ledger) -> None:
    for age in (2, 1, 0):
        await ledger.commit(Flush(finished=[done(index, TODAY_MS - age * DAY_MS) for index in range(3000)]))
    bytes_max = await ledger.read(used_bytes) // 2
    while await ledger.write(sqlite_trims.shrink, bytes_max):
        pass
    assert await ledger.read(used_bytes) <= bytes_max
    assert await days(ledger) == [f"done_{day_of(TODAY_MS)}", f"done_{day_of(TODAY_MS - DAY_MS)}"]
    assert await ledger.read(sqlite_queries.find, EVERYONE, done(2999, TODAY_MS).id) is not None
    while await ledger.write(sqlite_trims.shrink, 1):
        pass
    assert await days(ledger) == [f"done_{day_of(TODAY_MS)}"]
    await ledger.commit(Flush(finished=[done(1, TODAY_MS)]))


def retention(ledger: Ledger, log: SqliteEventLog, clock: SystemClock) -> RetentionLoop:
    """Return the retention of a ledger and a log; no delivery is under way."""
    idle = Dispatching(clock=clock)
    recorder = Recorder(ledger, idle.queue, idle.dispatcher, clock, gone=lambda _id: False)
    return RetentionLoop(ledger, log, idle.dispatcher, recorder, lambda: RetentionLimits(1.0, 1.0, 1 << 40, 1.0))


async def test_events_that_the_log_is_to_drop_are_copied_where_they_are_needed_and_one_that_is_lost_costs_no_other(
    tmp_path: Path, ledger: Ledger
) -> None:
    async with opened(tmp_path / "ingest.db") as it:
        places = [
            Place(result.partition, result.position, result.event_id)
            for result in await appended(it.log, new_events(range(1200), partition=7, size_bytes=20_000))
        ]
        needed = places[::2]
        cursor = Cursor(7, places[-1].position, places[-1].event_id, "")
        await ledger.commit(Flush(opened=[unfinished(index, place) for index, place in enumerate(needed)], cursors={7: cursor}))
        await release_all_others(ledger, places[-1])
        lost = needed[3]
        with contextlib.closing(sqlite3.connect(tmp_path / "ingest.db")) as damaged, damaged:
            damaged.execute("DELETE FROM events WHERE position = ?", (lost.position,))
        looking = retention(ledger, it.log, SystemClock())
        # No event is past its retention: nothing is copied, and needed events pin the log for now.
        await looking.release_log()
        assert await copies(ledger) == []
        assert await it.log.trim(before_ms=1 << 50) == 0

        it.clock.time_s += 4000
        await looking.release_log()
        assert [record.event_id for record in await copies(ledger)] == [place.event_id for place in needed if place != lost]
        assert await it.log.trim(before_ms=1 << 50) == len(places) - 1
        assert await ledger.write(sqlite_trims.drop_payloads, (-1, 0)) == (0, None)


async def release_all_others(ledger: Ledger, head: Place) -> None:
    """Move the cursors of all other partitions to the log's head, as happens after a while."""
    others = {partition: Cursor(partition, head.position, "", "") for partition in range(PARTITIONS) if partition != head.partition}
    await ledger.commit(Flush(cursors=others))


async def copies(ledger: Ledger) -> list[Record]:
    """Return the events of which the ledger has copies."""
    rows = await ledger.read(lambda connection: connection.execute("SELECT record FROM payloads ORDER BY position").fetchall())
    return [kept_record(raw) for (raw,) in rows]
