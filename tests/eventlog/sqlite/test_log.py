import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from services.eventlog.errors import EventLogError, LogClosedError, LogFullError, LogUnavailableError, StorageFullError
from services.eventlog.record import Appended, ShardPosition
from services.eventlog.sqlite.log import SqliteEventLog
from services.runtime.service_process import StartError
from tests.support.event_logs import TIMEOUT_S, Reading, accepted, appended, everything, new_event, new_events, opened, released
from tests.support.storage_faults import files_bounded, small_disk

MIB = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ingest.db"


def stored(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])


async def until_refused(log: SqliteEventLog, refusal: type[EventLogError], *, first: int = 0, per_append: int = 10) -> list[Appended]:
    """Append events, numbered from `first`, until the log refuses; return what was accepted."""
    receipts = list[Appended]()
    while True:
        start = first + len(receipts)
        try:
            receipts += await appended(log, new_events(range(start, start + per_append), size_bytes=1000))
        except refusal:
            return receipts


async def test_many_callers_at_once_keep_the_order_of_their_calls(path: Path) -> None:
    """The order holds also for calls that had to wait for room."""
    async with opened(path) as it, asyncio.timeout(TIMEOUT_S):
        calls = [asyncio.ensure_future(it.log.append(new_events(range(start, start + 1000)))) for start in range(0, 40_000, 1000)]
        await asyncio.sleep(0)
        assert it.log.pending_events == 20_000
        results = [result for call in calls for result in await call]
        assert it.log.pending_events == 0
    assert [accepted(result).position for result in results] == list(range(1, 40_001))


async def test_what_awaits_its_commit_is_bounded_in_bytes(path: Path) -> None:
    async with opened(path) as it, asyncio.timeout(TIMEOUT_S):
        calls = [asyncio.ensure_future(it.log.append([new_event(number, size_bytes=8 * MIB)])) for number in range(12)]
        await asyncio.sleep(0)
        assert it.log.pending_events == 8
        await asyncio.gather(*calls)
    assert stored(path) == 12


async def test_a_caller_that_has_gone_leaves_nothing_pending(path: Path) -> None:
    """The caller was waiting for its commit or for room; other callers go on."""
    async with opened(path) as it, asyncio.timeout(TIMEOUT_S):
        calls = [asyncio.ensure_future(it.log.append(new_events(range(start, start + 1000)))) for start in range(0, 30_000, 1000)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * 15
        await appended(it.log, [new_event(-1)])
        assert it.log.pending_events == 0


async def test_closing_answers_every_append(path: Path) -> None:
    """Each append is durable, or gets an error that it may not be; none hangs."""
    async with opened(path) as it:
        calls = [asyncio.ensure_future(it.log.append(new_events(range(start, start + 1000)))) for start in range(0, 40_000, 1000)]
        await asyncio.sleep(0)
    async with asyncio.timeout(TIMEOUT_S):
        answers = await asyncio.gather(*calls, return_exceptions=True)
    kept = [answer for answer in answers if isinstance(answer, list)]
    assert len(kept) >= 20
    assert all(isinstance(answer, LogClosedError) for answer in answers if not isinstance(answer, list))
    assert stored(path) == 1000 * len(kept)


async def test_a_closed_log_says_so(path: Path) -> None:
    async with opened(path) as it, it.log.follow(everything()) as following:
        waiting = asyncio.ensure_future(Reading(following).batch())
        await asyncio.sleep(0)
    with pytest.raises(LogUnavailableError):
        await waiting
    for call in (it.log.append([new_event(1)]), it.log.fetch(everything()), it.log.release(released(0)), it.log.trim(before_ms=1)):
        with pytest.raises(LogClosedError):
            await call


async def test_one_process_at_a_time_has_the_log_open(path: Path) -> None:
    """Two writers would give out the same positions."""
    async with opened(path):
        with pytest.raises(StartError, match="in use by another process"):
            async with opened(path):
                pass
    async with opened(path):
        pass


async def test_a_foreign_database_is_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(StartError, match="not of this service"):
        async with opened(path):
            pass


async def test_an_input_output_error_fails_all_and_stops_the_log(path: Path) -> None:
    """After a new start every acknowledged event is there, and positions go on after it."""
    async with opened(path) as it, asyncio.timeout(TIMEOUT_S):
        before = await appended(it.log, new_events(range(100)))
        with files_bounded(path.with_name("ingest.db-wal").stat().st_size):
            calls = [it.log.append(new_events(range(start, start + 50))) for start in range(100, 1000, 50)]
            answers = await asyncio.gather(*calls, it.log.release(released(0)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {LogClosedError}
        await it.failed.wait()
        assert [type(failure) for failure in it.failures] == [sqlite3.OperationalError]
        for call in (it.log.append([new_event(1)]), it.log.trim(before_ms=1), it.log.release(released(0))):
            with pytest.raises(LogClosedError):
                await call
        assert len(it.failures) == 1
    async with opened(path) as it:
        assert await appended(it.log, new_events(range(100))) == [receipt._replace(duplicate=True) for receipt in before]
        (new,) = await appended(it.log, [new_event(5000)])
        assert new.position == before[-1].position + 1


async def test_a_log_whose_file_is_gone_acknowledges_nothing(path: Path) -> None:
    """A write to a file without a name would succeed, and be lost."""
    home = path.parent / "home"
    home.mkdir()
    async with opened(home / "ingest.db") as it, asyncio.timeout(TIMEOUT_S):
        await appended(it.log, [new_event(1)])
        shutil.rmtree(home)
        with pytest.raises(LogClosedError):
            await it.log.append([new_event(2)])
        await it.failed.wait()


async def test_a_full_disk_refuses_and_heals(tmp_path: Path) -> None:
    """Every acknowledged event is there, once, and the log recovers by itself."""
    with small_disk(tmp_path / "disk", 6 * MIB) as disk:
        async with opened(disk / "ingest.db") as it, asyncio.timeout(TIMEOUT_S):
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(2 * MIB))
            receipts = await until_refused(it.log, StorageFullError)
            # A checkpoint may have made room for some more, which must be counted too.
            receipts += await until_refused(it.log, StorageFullError, first=20_000, per_append=100)
            ballast.unlink()
            receipts += await appended(it.log, new_events(range(40_000, 40_100), size_bytes=1000))
            assert it.failures == []
            async with it.log.follow(everything()) as following:
                records = await Reading(following).take(len(receipts))
            assert [record.event_id for record in records] == [receipt.event_id for receipt in receipts]


async def test_a_locked_file_is_unavailable_for_now(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another program holds the lock too long, that costs neither events nor the process."""
    monkeypatch.setattr("services.runtime.database.BUSY_TIMEOUT_MS", 500)
    async with opened(path) as it, asyncio.timeout(TIMEOUT_S):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LogUnavailableError):
                await it.log.append([new_event(1)])
            other.execute("ROLLBACK")
        assert [receipt.position for receipt in await appended(it.log, [new_event(1)])] == [1]
        assert it.failures == []


async def test_at_its_size_limit_the_log_takes_events_again_after_a_trim(path: Path) -> None:
    async with opened(path, bytes_max=2 * MIB) as it, asyncio.timeout(TIMEOUT_S):
        receipts = await until_refused(it.log, LogFullError)
        assert await it.log.used_bytes() >= 2 * MIB
        await it.log.release(released(receipts[-1].position))
        assert await it.log.trim(before_ms=int(it.clock.time_s * 1000) + 1) == len(receipts)
        assert await it.log.used_bytes() < MIB
        (new,) = await appended(it.log, [new_event(20_000)])
        assert new.position == receipts[-1].position + 1


async def test_appends_go_on_while_much_is_trimmed(path: Path) -> None:
    """A trim is many short steps; at the end the file is smaller, and the new events are kept."""
    async with opened(path) as it, asyncio.timeout(TIMEOUT_S):
        old = await appended(it.log, new_events(range(20_000), size_bytes=500))
        size = await it.log.used_bytes()
        it.clock.time_s += 10
        await it.log.release(released(old[-1].position))
        trimming = asyncio.ensure_future(it.log.trim(before_ms=int(it.clock.time_s * 1000)))
        new = list[Appended]()
        while not trimming.done():
            new += await appended(it.log, [new_event(100_000 + len(new))])
        assert await trimming == 20_000
        assert len(new) > 3
        assert await it.log.used_bytes() < size / 4
        async with it.log.follow(everything(old[-1].position)) as following:
            assert [record.event_id for record in await Reading(following).take(len(new))] == [receipt.event_id for receipt in new]


async def test_a_follower_that_falls_behind_reads_the_file_until_it_has_caught_up(path: Path) -> None:
    """At the boundary between file and memory no record is left out and none comes twice."""
    async with opened(path) as it, it.log.follow(everything(), batch_records_max=300) as following:
        reading = Reading(following)
        await appended(it.log, new_events(range(100)))
        found = await reading.take(100)
        await appended(it.log, new_events(range(100, 12_100)))
        found += await reading.batch()
        await appended(it.log, new_events(range(12_100, 20_100)))
        while len(found) < 20_100:
            found += await reading.batch()
        await appended(it.log, [new_event(30_000)])
        found += await reading.take(1)
    assert [record.position for record in found] == list(range(1, 20_102))


async def test_the_partition_that_needs_most_holds_the_others(path: Path) -> None:
    """Records after its first needed record stay too, and go when it is released."""
    async with opened(path) as it:
        receipts = await appended(it.log, [new_event(number, partition=number % 2) for number in range(10)])
        end_ms = int(it.clock.time_s * 1000) + 1
        await it.log.release(released(receipts[-1].position, slots=range(255)) + released(receipts[4].position, slots=[255]))
        assert await it.log.trim(before_ms=end_ms) == 5
        assert [record.position for record in await it.log.fetch([ShardPosition(0, r.position) for r in receipts])] == [
            receipt.position for receipt in receipts[5:]
        ]
        await it.log.release(released(receipts[-1].position))
        assert await it.log.trim(before_ms=end_ms) == 5


async def test_an_event_may_come_again_once_the_first_is_trimmed(path: Path) -> None:
    async with opened(path) as it:
        (first,) = await appended(it.log, [new_event(1, partition=0)])
        await it.log.release(released(first.position))
        assert await it.log.trim(before_ms=int(it.clock.time_s * 1000) + 1) == 1
        (second,) = await appended(it.log, [new_event(1, partition=0)])
        assert not second.duplicate
        assert second.event_id > first.event_id
