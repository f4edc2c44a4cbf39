import contextlib
import queue
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.eventlog.errors import EventLogError, LogClosedError, LogFullError, StorageFullError
from services.eventlog.record import Appended, Conflict, NewEvent
from services.eventlog.sqlite.log import MIGRATIONS
from services.eventlog.sqlite.writer import GROUP_EVENTS_MAX, Append, GroupOutcome, SqliteWriter, WriterTask
from services.runtime.database import connect, migrate
from tests.support.clock import MovedClock
from tests.support.event_logs import LARGE, TIMEOUT_S, new_event, new_events


@dataclass
class Settling:
    """A writer and the results that it reports; its thread runs when the test starts it."""

    path: Path
    writer: SqliteWriter
    said: "queue.Queue[GroupOutcome | BaseException | int | EventLogError]"
    visible: list[bool] = field(default_factory=list)

    def next(self) -> GroupOutcome:
        """Return the result of the next group."""
        settled = self.said.get(timeout=TIMEOUT_S)
        assert isinstance(settled, GroupOutcome), settled
        return settled

    def step(self, run: str) -> None:
        """Queue a statement as a step."""
        self.writer.put(WriterTask(lambda connection: connection.execute(run).rowcount, self.said.put))

    def count(self) -> int:
        """Return the number of records that another connection sees."""
        with contextlib.closing(connect(self.path, read_only=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])


@contextlib.contextmanager
def writing(path: Path, clock: MovedClock | None = None, *, bytes_max: int = LARGE) -> Iterator[Settling]:
    """Open a writer; close it at the end."""
    migrate(path, MIGRATIONS)
    said: queue.Queue[GroupOutcome | BaseException | int | EventLogError] = queue.Queue()
    visible: list[bool] = []

    def finished(group: GroupOutcome) -> None:
        with contextlib.closing(connect(path, read_only=True)) as reading:
            for append in group.appends if group.error is None else []:
                for event in append.events:
                    found = reading.execute("SELECT 1 FROM events WHERE source = ? AND id = ?", (event.source, event.id)).fetchone()
                    visible.append(found is not None)
        said.put(group)

    writer = SqliteWriter(path, clock or MovedClock(), bytes_max=bytes_max, finished=finished, failed=said.put)
    yield Settling(path, writer, said, visible)
    writer.close()


def results_of(outcome: GroupOutcome) -> list[Appended | Conflict]:
    return [result for append in outcome.appends for result in append.results or []]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def test_what_waits_is_committed_together(path: Path) -> None:
    """A commit takes waiting appends up to a group's size, in the order of the calls, and is visible before a caller hears of it."""
    with writing(path) as it:
        appends = [Append(new_events(range(start, start + 100))) for start in range(0, 5000, 100)]
        for append in appends:
            it.writer.put(append)
        it.writer.start()
        groups = [it.next() for _ in range(3)]
    assert [len(results_of(group)) for group in groups] == [GROUP_EVENTS_MAX, GROUP_EVENTS_MAX, 1000]
    assert [append for group in groups for append in group.appends] == appends
    positions = [result.position for group in groups for result in results_of(group) if isinstance(result, Appended)]
    assert positions == list(range(1, 5001))
    assert [record.position for group in groups for record in group.records] == positions
    assert it.visible == [True] * 5000


def test_an_append_larger_than_a_group_stays_whole(path: Path) -> None:
    with writing(path) as it:
        it.writer.put(Append(new_events(range(2 * GROUP_EVENTS_MAX + 1))))
        it.writer.put(Append([new_event(-1)]))
        it.writer.start()
        assert [len(it.next().records) for _ in range(2)] == [2 * GROUP_EVENTS_MAX + 1, 1]


def test_duplicates_and_conflicts_are_found_across_the_appends_of_a_group(path: Path) -> None:
    """The first call wins; each call gets its results in the order of its events."""
    with writing(path) as it:
        for events in (
            [new_event(1), new_event(2)],
            [new_event(3), new_event(2), new_event(1, content="other")],
            [new_event(3, content="other"), new_event(4), new_event(4)],
        ):
            it.writer.put(Append(events))
        it.writer.start()
        settled = it.next()
    first, second, third = (append.results or [] for append in settled.appends)
    assert [isinstance(result, Appended) and result.duplicate for result in (*first, *second, *third)] == [
        *(False, False),
        *(False, True, False),
        *(False, False, True),
    ]
    assert second[1] == first[1]._replace(duplicate=True)  # type: ignore[call-arg]  # both are of Appended
    assert second[2] == Conflict(first[0].event_id)
    assert third[0] == Conflict(second[0].event_id)
    assert third[2] == third[1]._replace(duplicate=True)  # type: ignore[call-arg]  # both are of Appended
    assert [record.event for record in settled.records] == [new_event(number).event for number in (1, 2, 3, 4)]
    assert [record.position for record in settled.records] == [1, 2, 3, 4]


def test_a_group_of_nothing_new_takes_no_position(path: Path) -> None:
    with writing(path) as it:
        it.writer.start()
        it.writer.put(Append(new_events(range(3))))
        it.next()
        it.writer.put(Append([*new_events(range(3)), new_event(0, content="other")]))
        assert it.next().records == []
        it.writer.put(Append([new_event(4)]))
        assert [record.position for record in it.next().records] == [4]


def test_times_of_acceptance_and_ids_grow_when_the_clock_goes_back(path: Path) -> None:
    """They also grow if the log was closed meanwhile."""
    clock, seen = MovedClock(), []
    for opening in range(2):
        with writing(path, clock) as it:
            it.writer.start()
            for number in range(3):
                it.writer.put(Append([new_event(10 * opening + number)]))
                (record,) = it.next().records
                seen.append((record.position, record.accepted_ms, record.event_id))
                clock.time_s -= 1000
    assert [position for position, _, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert {accepted_ms for _, accepted_ms, _ in seen} == {1_800_000_000_000}
    assert [event_id for _, _, event_id in seen] == sorted({event_id for _, _, event_id in seen})


def test_at_its_size_limit_the_log_refuses_until_there_is_room(path: Path) -> None:
    with writing(path, bytes_max=1024 * 1024) as it:
        it.writer.start()
        kept = 0
        while True:
            it.writer.put(Append(new_events(range(kept, kept + 50), size_bytes=1000)))
            settled = it.next()
            if settled.error is not None:
                break
            kept += 50
        assert isinstance(settled.error, LogFullError)
        assert settled.records == []
        assert 500 < kept < 1100
        assert it.count() == kept
        it.step("DELETE FROM events WHERE position <= 200")
        assert it.said.get(timeout=TIMEOUT_S) == 200
        it.writer.put(Append(new_events(range(kept, kept + 50), size_bytes=1000)))
        assert [record.position for record in it.next().records] == list(range(kept + 1, kept + 51))


def test_a_full_disk_refuses_a_group_and_heals(path: Path) -> None:
    """A refused group leaves nothing behind, and other work on the log waits for room as well."""
    with writing(path) as it:
        it.writer.start()
        it.writer.put(Append([new_event(0)]))
        it.next()
        it.step("PRAGMA max_page_count = 1")
        it.said.get(timeout=TIMEOUT_S)
        it.writer.put(Append(new_events(range(1, 1000))))
        settled = it.next()
        assert isinstance(settled.error, StorageFullError)
        assert it.count() == 1
        it.step("INSERT INTO meta SELECT 'x', hex(zeroblob(1000000))")
        assert isinstance(it.said.get(timeout=TIMEOUT_S), StorageFullError)
        it.step(f"PRAGMA max_page_count = {1 << 30}")
        it.said.get(timeout=TIMEOUT_S)
        it.writer.put(Append(new_events(range(1, 1000))))
        assert [record.position for record in it.next().records] == list(range(2, 1001))


def without_its_table(path: Path) -> None:
    with contextlib.closing(connect(path)) as other:
        other.execute("DROP TABLE events")


def test_an_error_fails_everything_that_waits(path: Path) -> None:
    """Appends and other work fail, in this group and later; and the log still closes."""
    with writing(path) as it:
        without_its_table(path)
        it.writer.put(Append([new_event(1)]))
        it.step("SELECT 1")
        it.writer.put(Append([new_event(2)]))
        it.writer.start()
        settled = it.next()
        assert [append.events for append in settled.appends] == [[new_event(1)], [new_event(2)]]
        assert isinstance(settled.error, LogClosedError)
        assert isinstance(it.said.get(timeout=TIMEOUT_S), LogClosedError)
        assert isinstance(it.said.get(timeout=TIMEOUT_S), sqlite3.OperationalError)
        it.writer.put(Append([new_event(3)]))
        assert isinstance(it.next().error, LogClosedError)
        it.step("SELECT 1")
        assert isinstance(it.said.get(timeout=TIMEOUT_S), LogClosedError)
    assert it.said.empty()


def test_an_error_in_other_work_is_as_final(path: Path) -> None:
    """Everything committed before it in the same group stays acknowledged."""
    with writing(path) as it:
        it.writer.put(Append([new_event(1)]))
        it.step("DELETE FROM a_table_that_is_not_there")
        it.step("SELECT 1")
        it.writer.start()
        assert len(it.next().records) == 1
        assert [type(it.said.get(timeout=TIMEOUT_S)) for _ in range(3)] == [LogClosedError, LogClosedError, sqlite3.OperationalError]
        it.writer.put(Append([new_event(2)]))
        assert isinstance(it.next().error, LogClosedError)
    assert it.count() == 1


def test_an_error_in_the_last_group_does_not_keep_the_log_from_closing(path: Path) -> None:
    with writing(path) as it:
        without_its_table(path)
        it.writer.put(Append([new_event(1)]))
        it.writer.put(None)  # type: ignore[arg-type]  # what closing puts, so that it surely joins the group
        it.writer.start()
        assert isinstance(it.next().error, LogClosedError)
        assert isinstance(it.said.get(timeout=TIMEOUT_S), sqlite3.OperationalError)
        for thread in threading.enumerate():
            if thread.name == "log-writer":
                thread.join(TIMEOUT_S)
                assert not thread.is_alive()


def test_closing_commits_what_waits(path: Path) -> None:
    events: list[NewEvent] = []
    with writing(path) as it:
        for start in range(0, 10_000, 500):
            events += new_events(range(start, start + 500))
            it.writer.put(Append(events[-500:]))
        it.writer.start()
    assert it.count() == 10_000
    assert it.visible == [True] * 10_000
