"""Queries: the queries are compared with a model that looks at every record."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.eventlog.errors import PositionMismatchError
from services.eventlog.history import EventQuery
from services.eventlog.protocol import BATCH_BYTES_MAX
from services.eventlog.record import PARTITIONS, Record, ShardPosition, SlotProgress
from services.eventlog.sqlite import queries
from services.eventlog.sqlite.log import MIGRATIONS
from services.runtime.consumer_scope import EVERYONE, OwnConsumer, Scope
from services.runtime.database import connect, give_back_some, migrate, vacuum_some

ROW = (
    "INSERT INTO events (position, partition, event_id, accepted_ms, source, id, type, audience, digest, event) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
SLOTS = st.integers(0, 6)
AUDIENCES = ("", "con_" + "a" * 32, "con_" + "b" * 32)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A log without records, to be copied."""
    path = tmp_path_factory.mktemp("log") / "empty.db"
    migrate(path, MIGRATIONS)
    with closing(connect(path)) as connection:
        yield connection


@dataclass
class World:
    """Records, of which some are trimmed, in a database and in a list."""

    made: list[Record]
    trimmed: int
    progress: dict[int, tuple[int, int]]
    """For each slot that was reported, what it has recorded and released."""

    @property
    def held(self) -> list[Record]:
        """The records that are not trimmed."""
        return self.made[self.trimmed :]

    @property
    def trimmed_to(self) -> int:
        """The position of the last trimmed record."""
        return self.made[self.trimmed - 1].position if self.trimmed else 0

    @property
    def head(self) -> int:
        """The position of the last record ever."""
        return self.made[-1].position if self.made else 0

    def stored(self, empty: sqlite3.Connection) -> sqlite3.Connection:
        """Return a database that holds these records."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        empty.backup(connection)
        connection.executemany(ROW, [row_of(record) for record in self.held])
        connection.execute("UPDATE meta SET value = ? WHERE name = 'trimmed_to'", (str(self.trimmed_to),))
        connection.executemany("INSERT INTO progress VALUES (?, 0, ?, ?)", [(slot, *both) for slot, both in self.progress.items()])
        return connection


def row_of(record: Record) -> tuple[object, ...]:
    event_id = bytes.fromhex(record.event_id[4:])
    return (
        record.position,
        record.partition,
        event_id,
        record.accepted_ms,
        record.source,
        str(record.position),
        record.type,
        record.audience,
        b"",
        record.event,
    )


def record(position: int, event_id: int, accepted_ms: int, partition: int = 0, kind: int = 0, size_bytes: int = 3) -> Record:
    audience = AUDIENCES[kind % 3]
    return Record(0, partition, position, f"evt_{event_id:032x}", f"t{kind % 2}", f"/s{kind % 4}", audience, accepted_ms, b"." * size_bytes)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Records with gaps between positions, with growing ids and times; neighbouring times may be equal."""
    made, position, event_id, accepted_ms = list[Record](), 0, 0, 1000
    for gap, id_step, time_step, partition, kind in draw(
        st.lists(
            st.tuples(st.integers(1, 4), st.integers(1, 3), st.sampled_from([0, 0, 1, 50]), st.integers(0, 3), st.integers(0, 11)),
            max_size=40,
        )
    ):
        position, event_id, accepted_ms = position + gap, event_id + id_step, accepted_ms + time_step
        made.append(record(position, event_id, accepted_ms, partition, kind))
    few = draw(st.dictionaries(st.integers(0, 5), st.integers(0, position + 2), max_size=6))
    # Most worlds have reports of all slots, because only then something may be trimmed.
    everywhere = draw(st.none() | st.integers(0, position + 2))
    released = few if everywhere is None else dict.fromkeys(range(256), everywhere) | few
    progress = {slot: (each + draw(st.integers(0, 2)) if slot in few else each, each) for slot, each in released.items()}
    return World(made, draw(st.integers(0, len(made))), progress)


@given(worlds(), st.integers(990, 3200))
def test_a_time_is_found_by_halving(empty: sqlite3.Connection, world: World, time_ms: int) -> None:
    with closing(world.stored(empty)) as connection:
        expected = next((each.position for each in world.held if each.accepted_ms >= time_ms), world.head + 1)
        assert queries.first_position_at(connection, time_ms) == expected


@given(worlds(), st.integers(0, 130))
def test_an_id_is_found_by_halving(empty: sqlite3.Connection, world: World, event_id: int) -> None:
    with closing(world.stored(empty)) as connection:
        expected = next((each for each in world.held if each.event_id == f"evt_{event_id:032x}"), None)
        assert queries.record_by_id(connection, event_id.to_bytes(16, "big")) == expected
        for each in world.held:
            assert queries.record_by_id(connection, bytes.fromhex(each.event_id[4:])) == each


@given(worlds(), st.integers(0, 170), st.integers(1, 50))
def test_reading_on_from_a_position_misses_nothing(empty: sqlite3.Connection, world: World, after: int, limit: int) -> None:
    with closing(world.stored(empty)) as connection:
        assert queries.records_after(connection, after, limit) == [each for each in world.held if each.position > after][:limit]


@given(worlds(), st.integers(0, 170), st.sampled_from(["known", "another", ""]), st.sampled_from(["known", "another", ""]), st.sets(SLOTS))
def test_a_resume_point_is_compared_with_the_log(
    empty: sqlite3.Connection, world: World, position: int, at: str, next_: str, slots: set[int]
) -> None:
    """A place that fits leads to a start before every record that the follower must get."""
    here = {each.position: each.event_id for each in world.made}.get(position)
    following = next((each.event_id for each in world.held if each.position > position), None)
    foreign = "evt_" + "f" * 32
    event_id, following_id = (
        {"known": here or foreign, "another": foreign, "": ""}[at],
        {"known": following or foreign, "another": foreign, "": ""}[next_],
    )
    released = max(world.progress.get(slot, (0, 0))[1] for slot in slots or range(256))
    fits = (
        position <= world.head
        and (event_id in {"", here} or position <= world.trimmed_to)
        and following_id in {"", following}
        and (position >= released or not (event_id or following_id))
    )
    with closing(world.stored(empty)) as connection:
        place = ShardPosition(0, position, event_id, following_id)
        if not fits:
            with pytest.raises(PositionMismatchError):
                queries.check_place(connection, place, sorted(slots))
            return
        head, start = queries.check_place(connection, place, sorted(slots))
        due = [each for each in world.held if each.position > position]
        assert queries.records_after(connection, start, 1000) == due
        assert (head, start) == (world.head, max(position, world.trimmed_to))


@given(
    worlds(),
    st.sampled_from([EVERYONE, OwnConsumer("con_" + "c" * 32), OwnConsumer(AUDIENCES[1])]),
    st.sampled_from(["", "t0"]),
    st.sampled_from(["", "/s1"]),
    st.tuples(st.none() | st.integers(990, 2500), st.none() | st.integers(990, 2500)),
    st.integers(1, 7),
)
def test_pages_of_the_newest_records_together_hold_what_is_wanted_once(
    empty: sqlite3.Connection,
    world: World,
    scope: Scope,
    kind: str,
    source: str,
    between: tuple[int | None, int | None],
    limit: int,
) -> None:
    start_ms, end_ms = between
    found: list[Record] = []
    with closing(world.stored(empty)) as connection:
        before: int | None = None
        while True:
            query = EventQuery(before, limit, scope, kind, source, start_ms, end_ms)
            page, before = queries.newest_records(connection, query)
            assert len(page) <= limit
            found += page
            if before is None:
                break
    assert found == [
        each
        for each in reversed(world.held)
        if (not each.audience or scope.includes(each.audience))
        and kind in {"", each.type}
        and source in {"", each.source}
        and (start_ms is None or each.accepted_ms >= start_ms)
        and (end_ms is None or each.accepted_ms < end_ms)
    ]


def trimmable(world: World, before_ms: int) -> int:
    """Return how many of the oldest records are old enough and released by all slots."""
    released = min(world.progress.get(slot, (0, 0))[1] for slot in range(256))
    for index, each in enumerate(world.held):
        if each.accepted_ms >= before_ms or each.position > released:
            return index
    return len(world.held)


@given(worlds(), st.integers(990, 3200))
def test_trimming_drops_what_is_old_and_released_and_nothing_behind_it(empty: sqlite3.Connection, world: World, before_ms: int) -> None:
    count = trimmable(world, before_ms)
    with closing(world.stored(empty)) as connection:
        assert queries.trim_some(connection, before_ms) == count
        assert queries.trim_some(connection, before_ms) == 0
        assert queries.records_after(connection, 0, 1000) == world.held[count:]
        assert queries.check_place(connection, ShardPosition(0, world.head)) == (world.head, world.head)


@settings(max_examples=50)
@given(worlds(), st.lists(st.tuples(st.sets(SLOTS, min_size=1), st.integers(0, 200), st.integers(0, 200)), max_size=8))
def test_progress_only_grows_and_an_older_or_foreign_report_changes_nothing(
    empty: sqlite3.Connection, world: World, more: list[tuple[set[int], int, int]]
) -> None:
    with closing(world.stored(empty)) as connection:
        expected = dict(world.progress)
        for slots, recorded, released in more:
            queries.store_released(connection, [SlotProgress(sorted(slots), [ShardPosition(0, recorded)], [ShardPosition(0, released)])])
            for slot in slots if recorded <= world.head else ():
                before_recorded, before_released = expected.get(slot, (0, 0))
                if recorded >= before_recorded:
                    expected[slot] = recorded, max(before_released, min(released, recorded))
        found = connection.execute("SELECT slot, recorded, released FROM progress WHERE shard = 0").fetchall()
        assert {slot: (recorded, released) for slot, recorded, released in found} == expected


def test_a_filtered_listing_looks_at_a_bounded_number_of_records_a_page(empty: sqlite3.Connection) -> None:
    """A page may hold fewer records than asked, even none, and still name a next page."""
    with closing(World([], 0, {}).stored(empty)) as connection:
        rare = record(2, 2, 1000, kind=1)
        connection.executemany(ROW, [row_of(rare if number == 2 else record(number, number, 1000)) for number in range(1, 120_001)])
        query = EventQuery(None, 10, EVERYONE, "t1", "", None, None)
        pages, befores = [], []
        while True:
            page, before = queries.newest_records(connection, query)
            pages.append(page)
            if before is None:
                break
            befores.append(before)
            query = query._replace(before=before)
        assert pages == [[], [], [rare]]
        assert befores == [70_001, 20_001]


def test_answers_are_bounded_in_bytes(empty: sqlite3.Connection) -> None:
    """An answer holds at least one record, and then as many as fit into 3 MiB."""
    large = [record(number, number, 1000, size_bytes=1024 * 1024) for number in range(1, 8)]
    with closing(World([*large, record(8, 8, 1000, size_bytes=4 * 1024 * 1024)], 0, {}).stored(empty)) as connection:
        assert [each.position for each in queries.records_after(connection, 0, 100)] == [1, 2, 3]
        everything = EventQuery(None, 200, EVERYONE, "", "", None, None)
        pages, before = list[list[int]](), None
        while not pages or before is not None:
            page, before = queries.newest_records(connection, everything._replace(before=before))
            pages.append([each.position for each in page])
        assert pages == [[8], [7, 6, 5], [4, 3, 2], [1]]
        places = [ShardPosition(0, position) for position in (8, 1, 2, 3, 4)]
        found, complete = queries.records_at(connection, places, bytes_max=BATCH_BYTES_MAX)
        assert ([each.position for each in found], complete) == ([8], False)
        found, complete = queries.records_at(connection, places[1:], bytes_max=BATCH_BYTES_MAX)
        assert ([each.position for each in found], complete) == ([1, 2, 3], False)
        assert queries.records_at(connection, places[2:], bytes_max=BATCH_BYTES_MAX)[1]
        assert len(queries.records_at(connection, places)[0]) == 5


def test_a_trim_is_bounded_and_goes_on(empty: sqlite3.Connection) -> None:
    made = [record(number, number, 1000, partition=number % PARTITIONS) for number in range(1, 2501)]
    with closing(World(made, 0, dict.fromkeys(range(256), (2500, 2500))).stored(empty)) as connection:
        assert [queries.trim_some(connection, 2000) for _ in range(4)] == [1000, 1000, 500, 0]


def test_free_pages_go_back_many_at_once_but_not_the_last_quarter(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    migrate(path, MIGRATIONS)
    with closing(connect(path)) as connection:
        connection.executemany(ROW, [row_of(record(number, number, 1000, size_bytes=3000)) for number in range(1, 1001)])
        assert give_back_some(connection) == 0

        def pages() -> int:
            return int(connection.execute("PRAGMA page_count").fetchone()[0])

        full = pages()
        connection.execute("DELETE FROM events WHERE position <= 100")
        assert connection.execute("PRAGMA freelist_count").fetchone()[0] > 50
        assert give_back_some(connection) == 0
        connection.execute("DELETE FROM events WHERE position <= 900")
        given_back = give_back_some(connection)
        assert given_back > 800
        assert pages() <= full - given_back
        assert give_back_some(connection) == 0
        connection.execute("DELETE FROM events WHERE position <= 950")
        assert vacuum_some(connection, pages_max=7) == 7
        assert [each.position for each in queries.records_after(connection, 0, 1000)] == list(range(951, 1001))
