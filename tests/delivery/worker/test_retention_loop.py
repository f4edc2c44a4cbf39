"""Retention loop: events that the log is about to drop are copied, against a real log and a real ledger."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.delivery.ledger.protocol import Cursor, Flush, Ledger
from services.delivery.worker.recorder import Recorder
from services.delivery.worker.retention_loop import RetentionLimits, RetentionLoop
from services.eventlog.record import PARTITIONS, Place
from services.eventlog.sqlite.log import SqliteEventLog
from services.runtime.clock import SystemClock
from tests.delivery.dispatch.dispatching import Dispatching
from tests.delivery.ledger.deliveries import unfinished
from tests.delivery.ledger.stores import SqliteStore
from tests.eventlog.logs import appended, new_events, opened


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    """The place of a ledger."""
    return SqliteStore(tmp_path / "delivery.db")


@pytest.fixture
async def ledger(store: SqliteStore) -> AsyncIterator[Ledger]:
    """A ledger with its lease taken."""
    async with store.open() as running:
        await running.take_lease("a test")
        yield running


def retention(ledger: Ledger, log: SqliteEventLog, clock: SystemClock) -> RetentionLoop:
    """Return the retention of a ledger and a log; no delivery is under way."""
    idle = Dispatching(clock=clock)
    recorder = Recorder(ledger, idle.queue, idle.dispatcher, clock, gone=lambda _id: False)
    return RetentionLoop(ledger, log, idle.dispatcher, recorder, lambda: RetentionLimits(1.0, 1.0, 1 << 40, 1.0))


async def test_events_that_the_log_is_to_drop_are_copied_where_they_are_needed_and_one_that_is_lost_costs_no_other(
    tmp_path: Path, store: SqliteStore, ledger: Ledger
) -> None:
    async with opened(tmp_path / "ingest.db") as it:
        places = [
            Place(result.partition, result.position, result.event_id)
            for result in await appended(it.log, new_events(range(1200), partition=7, size_bytes=20_000))
        ]
        needed = places[::2]
        cursor = Cursor(7, places[-1].position, places[-1].event_id, "")
        rows = [
            unfinished(index, partition=place.partition, position=place.position, event_id=place.event_id)
            for index, place in enumerate(needed)
        ]
        await ledger.flush(Flush(rows, cursors=[cursor]))
        await release_all_others(ledger, places[-1])
        lost = needed[3]
        with contextlib.closing(sqlite3.connect(tmp_path / "ingest.db")) as damaged, damaged:
            damaged.execute("DELETE FROM events WHERE position = ?", (lost.position,))
        looking = retention(ledger, it.log, SystemClock())
        # No event is past its retention: nothing is copied, and needed events pin the log for now.
        await looking.release_log()
        assert store.copies() == {}
        assert await it.log.trim(before_ms=1 << 50) == 0

        it.clock.time_s += 4000
        await looking.release_log()
        assert [record.event_id for record in store.copies().values()] == [place.event_id for place in needed if place != lost]
        assert await it.log.trim(before_ms=1 << 50) == len(places) - 1
        assert (await ledger.trim(before_ms=None, bytes_max=1 << 40)).copies == 0


async def release_all_others(ledger: Ledger, head: Place) -> None:
    """Move the cursors of all other partitions to the log's head, as happens after a while."""
    others = [Cursor(partition, head.position, "", "") for partition in range(PARTITIONS) if partition != head.partition]
    await ledger.flush(Flush(cursors=others))
