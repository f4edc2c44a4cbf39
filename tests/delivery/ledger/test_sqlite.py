import contextlib
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from services.delivery.errors import LeaseLostError, LedgerFullError
from services.delivery.ledger import sqlite_queries, sqlite_trims
from services.delivery.ledger.rows import DoneRow, OpenRow, attempts_of, done_row, keep_record, kept_record, open_row
from services.delivery.ledger.sqlite import Cursor, Flush, Ledger, day_of, open_ledger, set_meta
from services.delivery.ledger.sqlite_queries import Wanted
from services.delivery.model import Attempt, Delivery, State, delivery_id
from services.delivery.transport.protocol import Outcome
from services.eventlog.record import PARTITIONS, Place, Record
from services.runtime.consumer_scope import EVERYONE, OwnConsumer, Scope
from services.runtime.database import database_path, used_bytes
from services.runtime.database_files import FileGoneError
from services.runtime.listing_reader import Budget
from services.runtime.service_process import StartError

DAY_MS = 86_400_000
NOW_MS = 20_834 * DAY_MS
ANY = Wanted(None, 1000, EVERYONE, None, "", "", "", None, None)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """A ledger with its lease taken."""
    async with open_ledger(tmp_path / "delivery.db") as opened:
        await opened.lease("one")
        yield opened


def delivery(number: int, subscription: str = "a", **changed: object) -> Delivery:
    """Return a delivery of event number `number`, accepted in the millisecond of that number."""
    event_id = f"evt_{NOW_MS + number:012x}7000{'8':0<16}"
    subscription_id = "sub_" + subscription * 32
    made = Delivery(
        id=delivery_id(event_id, subscription_id),
        event_id=event_id,
        partition=number % PARTITIONS,
        position=number,
        event_type="order.created",
        accepted_ms=NOW_MS + number,
        subscription_id=subscription_id,
        consumer_id="con_" + "c" * 32,
        revision=3,
        event=None,
    )
    return replace(made, **changed)  # type: ignore[arg-type]  # fields by name


def finished(number: int, subscription: str = "a", state: State = State.DELIVERED, day: int = 0, **changed: object) -> DoneRow:
    return done_row(delivery(number, subscription, state=state, finished_ms=NOW_MS + day * DAY_MS, **changed))


async def rows(ledger: Ledger) -> list[OpenRow | DoneRow]:
    return await newest(ledger, ANY)


async def newest(ledger: Ledger, want: Wanted) -> list[OpenRow | DoneRow]:
    """Return one page that holds every row."""
    found, before_id = await ledger.read(sqlite_queries.newest, want)
    assert before_id is None or len(found) == want.limit
    return found


async def cursor(ledger: Ledger, partition: int) -> tuple[object, ...]:
    def query(connection: sqlite3.Connection) -> tuple[object, ...]:
        found = connection.execute("SELECT position, event_id, subscription_id FROM cursors WHERE partition = ?", (partition,)).fetchone()
        return tuple(found)

    return await ledger.read(query)


async def test_a_flush_is_there_whole(ledger: Ledger) -> None:
    flush = Flush([open_row(delivery(1))], finished=[finished(2)], cursors={1: Cursor(1, 65, "evt_x", "sub_y")})
    await ledger.commit(flush)
    assert await rows(ledger) == [finished(2), open_row(delivery(1))]
    assert await cursor(ledger, 1) == (65, "evt_x", "sub_y")
    assert await cursor(ledger, 2) == (0, "", "")


async def test_or_not_at_all(ledger: Ledger) -> None:
    """If one row cannot be written, neither the other rows nor the cursor are."""
    broken = finished(3)._replace(attempt_count="many")  # type: ignore[arg-type]  # what the database refuses
    with pytest.raises(sqlite3.IntegrityError):
        await ledger.commit(Flush([open_row(delivery(1))], finished=[finished(2), broken], cursors={1: Cursor(1, 65, "", "")}))
    assert await rows(ledger) == []
    assert await cursor(ledger, 1) == (0, "", "")


async def test_a_delivery_moves_from_open_to_done_in_one_step(ledger: Ledger) -> None:
    attempted = delivery(1, attempts=[Attempt(NOW_MS, 12, Outcome.STATUS, 500, "the endpoint answered 500", "für")], due_ms=NOW_MS + 5000)
    await ledger.commit(Flush([open_row(delivery(1))]))
    await ledger.commit(Flush(updated=[open_row(attempted)]))
    assert await rows(ledger) == [open_row(attempted)]
    ended = replace(attempted, state=State.DELIVERED, finished_ms=NOW_MS + 6000)
    await ledger.commit(Flush(closed=[ended.id], finished=[done_row(ended)]))
    assert await rows(ledger) == [done_row(ended)]
    found = await ledger.read(sqlite_queries.find, EVERYONE, ended.id)
    assert isinstance(found, DoneRow)
    assert attempts_of(found.attempts) == attempted.attempts


async def test_a_terminal_state_never_changes(ledger: Ledger) -> None:
    await ledger.commit(Flush(finished=[finished(1)]))
    await ledger.commit(Flush(finished=[finished(1, state=State.CANCELLED)]))
    assert await rows(ledger) == [finished(1)]


async def test_a_row_that_is_there_is_not_begun_anew(ledger: Ledger) -> None:
    """Routing an event again keeps the attempts that were made."""
    attempted = open_row(delivery(1, due_ms=NOW_MS + 5000))
    await ledger.commit(Flush([attempted]))
    await ledger.commit(Flush([open_row(delivery(1))]))
    assert await rows(ledger) == [attempted]


async def test_more_rows_than_one_statement_takes(ledger: Ledger) -> None:
    opened = [open_row(delivery(number)) for number in range(1001)]
    await ledger.commit(Flush(opened, finished=[finished(number, "b") for number in range(999)]))
    assert len(await newest(ledger, ANY._replace(limit=5000))) == 2000


async def test_after_a_restart_all_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "delivery.db"
    async with open_ledger(path) as first:
        assert await first.lease("one") == [Cursor(partition, 0, "", "") for partition in range(PARTITIONS)]
        await first.commit(Flush([open_row(delivery(1))], finished=[finished(2)], cursors={7: Cursor(7, 9, "evt_x", "sub_y")}))
    async with open_ledger(path) as second:
        assert (await second.lease("two"))[7] == Cursor(7, 9, "evt_x", "sub_y")
        assert await rows(second) == [finished(2), open_row(delivery(1))]
        await second.commit(Flush(finished=[finished(3)]))
        assert len(await rows(second)) == 3


async def test_a_worker_whose_lease_was_taken_writes_nothing(tmp_path: Path) -> None:
    """Only the worker that took the lease last writes, also if both have the same name; the other cannot even write the ledger's state."""
    path = tmp_path / "delivery.db"
    async with open_ledger(path) as first, unlocked(path) as second:
        await first.lease("worker")
        await first.commit(Flush(finished=[finished(1)], cursors={1: Cursor(1, 1, "", "")}))
        assert (await second.lease("worker"))[1].position == 1
        with pytest.raises(LeaseLostError):
            await first.commit(Flush([open_row(delivery(2))], finished=[finished(3)], cursors={1: Cursor(1, 2, "", "")}))
        for write in (
            first.write(set_meta, "name", "value"),
            first.write(sqlite_trims.shrink, 0),
            first.write(sqlite_trims.drop_payloads, (0, 0)),
        ):
            with pytest.raises(LeaseLostError):
                await write
        assert await second.read(sqlite_queries.meta, "name") is None
        assert await rows(second) == [finished(1)]
        assert (await cursor(second, 1))[0] == 1
        await second.commit(Flush(finished=[finished(3)]))


@contextlib.asynccontextmanager
async def unlocked(path: Path) -> AsyncIterator[Ledger]:
    """Open a ledger that is already open, as two processes could on a file system without locks."""
    second = Ledger(path)
    try:
        yield second
    finally:
        await second.close()


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


async def test_a_ledger_whose_file_is_replaced_records_nothing(tmp_path: Path) -> None:
    path = tmp_path / "delivery.db"
    async with open_ledger(path) as ledger:
        await ledger.lease("one")
        await ledger.commit(Flush(finished=[finished(1)]))
        path.rename(tmp_path / "away.db")
        shutil.copy(tmp_path / "away.db", path)
        with pytest.raises(FileGoneError):
            await ledger.commit(Flush(finished=[finished(2)]))


async def test_a_worker_without_a_lease_writes_nothing(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "delivery.db") as ledger:
        with pytest.raises(LeaseLostError):
            await ledger.commit(Flush(finished=[finished(1)]))


async def limit_pages(ledger: Ledger, spare: int) -> None:
    """Let the file grow by at most `spare` pages."""

    def limit(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + spare}")

    await ledger.write(limit)


async def test_on_a_full_disk_nothing_is_written_until_there_is_room(ledger: Ledger) -> None:
    """The same flush can be repeated; the table of a new day, rolled back with the flush, is made again."""
    await limit_pages(ledger, 3)
    large = [finished(number, attempts=[Attempt(0, 0, Outcome.STATUS, 500, "", "x" * 1000)]) for number in range(100)]
    flush = Flush([open_row(delivery(200))], finished=large, cursors={1: Cursor(1, 65, "", "")})
    for _ in range(3):
        with pytest.raises(LedgerFullError):
            await ledger.commit(flush)
        assert await rows(ledger) == []
        assert (await cursor(ledger, 1))[0] == 0
    await limit_pages(ledger, 1 << 20)
    await ledger.commit(flush)
    assert len(await rows(ledger)) == 101
    assert (await cursor(ledger, 1))[0] == 65


async def test_finished_deliveries_stand_by_the_day_of_their_end(ledger: Ledger) -> None:
    await ledger.commit(Flush(finished=[finished(1), finished(2, day=-1), finished(3)._replace(finished_ms=NOW_MS + DAY_MS - 1)]))
    await ledger.commit(Flush(finished=[finished(4, day=1)]))
    assert await ledger.read(sqlite_queries.day_tables) == ["done_20270117", "done_20270116", "done_20270115"]
    for number in (1, 2, 3, 4):
        found = await ledger.read(sqlite_queries.find, EVERYONE, delivery(number).id)
        assert isinstance(found, DoneRow)
        assert found.position == number
    assert await ledger.read(sqlite_queries.find, EVERYONE, delivery(5).id) is None


@pytest.mark.parametrize(("time_ms", "day"), [(0, "19700101"), (DAY_MS - 1, "19700101"), (NOW_MS, "20270116"), (-1, "19691231")])
def test_days_are_those_of_utc(time_ms: int, day: str) -> None:
    assert day_of(time_ms) == day


async def test_a_lane_reads_back_by_position_and_then_by_due_time(ledger: Ledger) -> None:
    opened = [open_row(delivery(number)) for number in (5, 3, 4)]
    opened += [open_row(delivery(1, due_ms=NOW_MS + 20)), open_row(delivery(2, due_ms=NOW_MS + 10)), open_row(delivery(9, "b"))]
    await ledger.commit(Flush(opened))

    async def positions(due_by_ms: int, limit: int = 100) -> list[int]:
        return [row.position for row in await ledger.read(sqlite_queries.unfinished, delivery(1).subscription_id, due_by_ms, limit)]

    assert await positions(NOW_MS + 20) == [3, 4, 5, 2, 1]
    assert await positions(NOW_MS + 19) == [3, 4, 5, 2]
    assert await positions(0, limit=2) == [3, 4]
    assert await ledger.read(sqlite_queries.next_due_ms, delivery(1).subscription_id, NOW_MS) == NOW_MS + 10
    assert await ledger.read(sqlite_queries.next_due_ms, delivery(1).subscription_id, NOW_MS + 10) == NOW_MS + 20
    assert await ledger.read(sqlite_queries.next_due_ms, delivery(1).subscription_id, NOW_MS + 20) is None
    assert await ledger.read(sqlite_queries.lanes_with_unfinished) == ["sub_" + "a" * 32, "sub_" + "b" * 32]


def wanted(row: OpenRow | DoneRow, want: Wanted) -> bool:
    """Return whether a row matches, by the definition of `Wanted`."""
    state = State.PENDING if isinstance(row, OpenRow) else State(row.state)
    return (
        want.scope.includes(row.consumer_id)
        and want.state in {None, state}
        and want.subscription_id in {"", row.subscription_id}
        and want.event_id in {"", row.event_id}
        and want.event_type in {"", row.event_type}
        and (want.start_ms is None or row.accepted_ms >= want.start_ms)
        and (want.end_ms is None or row.accepted_ms < want.end_ms)
    )


async def pages(ledger: Ledger, want: Wanted, size: int, budget: Budget | None = None) -> list[list[OpenRow | DoneRow]]:
    found, before_id = list[list[OpenRow | DoneRow]](), None
    while True:
        page, before_id = await ledger.read(sqlite_queries.newest, want._replace(limit=size, before_id=before_id), budget)
        found.append(page)
        if before_id is None:
            return found


@pytest.mark.parametrize("seed", range(3))
async def test_a_listing_finds_what_is_wanted_page_by_page(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """The listing covers unfinished rows and the finished rows of several days, newest event first, each row once."""
    chance = random.Random(seed)
    every: list[OpenRow | DoneRow] = []
    for number in range(120):
        changed = {"consumer_id": "con_" + chance.choice("cd") * 32, "event_type": chance.choice(("order.created", "order.paid"))}
        subscription = chance.choice("ab")
        if chance.random() < 0.4:
            every.append(open_row(delivery(number, subscription, **changed)))
        else:
            state = chance.choice((State.DELIVERED, State.EXHAUSTED, State.CANCELLED))
            every.append(finished(number, subscription, state, chance.randint(-2, 2), **changed))
    opened, ended = [row for row in every if isinstance(row, OpenRow)], [row for row in every if isinstance(row, DoneRow)]
    await ledger.commit(Flush(opened, finished=ended))
    for _ in range(40):
        want = Wanted(
            before_id=None,
            limit=0,
            scope=chance.choice((EVERYONE, EVERYONE, OwnConsumer("con_" + "c" * 32))),
            state=chance.choice((None, None, *State)),
            subscription_id=chance.choice(("", "", "sub_" + "a" * 32)),
            event_id=chance.choice(("", "", "", chance.choice(every).event_id)),
            event_type=chance.choice(("", "", "order.paid")),
            start_ms=chance.choice((None, NOW_MS + chance.randrange(120), -5)),
            end_ms=chance.choice((None, NOW_MS + chance.randrange(120), 1 << 60)),
        )
        expected = sorted((row for row in every if wanted(row, want)), key=lambda row: row.id, reverse=True)
        monkeypatch.setattr(sqlite_queries, "_EXAMINED_STEP", chance.choice((1, 3, 1000)))
        monkeypatch.setattr(sqlite_queries, "_STEPS_MAX", chance.choice((1, 3, 50)))
        found = await pages(ledger, want, size := chance.choice((1, 7, 200)))
        assert [row for page in found for row in page] == expected, want
        assert all(len(page) <= size for page in found)


@pytest.mark.parametrize("scope", [EVERYONE, OwnConsumer("con_" + "c" * 32)], ids=["everyone", "own"])
async def test_a_listing_examines_a_bounded_number_of_rows_a_page(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, scope: Scope) -> None:
    """A page may be empty and still name a next one; a page that is out of time ends after one step. SQLite's machine steps are counted."""
    monkeypatch.setattr(sqlite_queries, "_STEPS_MAX", 4)
    await ledger.commit(Flush(finished=[finished(number, day=number % 3) for number in range(1, 30_000)]))
    await ledger.commit(Flush(finished=[finished(0, event_type="rare")]))
    want = ANY._replace(event_type="rare", scope=scope)

    def counted(connection: sqlite3.Connection, before_id: bytes | None, budget: Budget) -> tuple[int, int, bytes | None]:
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        connection.set_progress_handler(step, 1000)
        found, next_id = sqlite_queries.newest(connection, want._replace(limit=10, before_id=before_id), budget)
        connection.set_progress_handler(None, 0)
        return steps, len(found), next_id

    unhurried = [await ledger.read(counted, None, Budget(3600.0))]
    while (next_id := unhurried[-1][2]) is not None:
        unhurried.append(await ledger.read(counted, next_id, Budget(3600.0)))
    assert [count for _, count, _ in unhurried] == [0, 0, 1]
    whole = sum(steps for steps, *_ in unhurried)
    assert max(steps for steps, *_ in unhurried) < whole / 2
    hurried_steps, hurried_count, hurried_next = await ledger.read(counted, None, Budget(0.0))
    assert (hurried_count, hurried_next is None) == (0, False)
    assert hurried_steps < whole / 5


async def test_a_listing_by_event_looks_at_nothing_else(ledger: Ledger) -> None:
    """A delivery's id begins with its event's time, so the query reads only ids of that time."""
    await ledger.commit(Flush(finished=[finished(number) for number in range(30_000)]))
    found, before_id = await ledger.read(sqlite_queries.newest, ANY._replace(event_id=finished(7).event_id), Budget(0.0))
    assert (found, before_id) == ([finished(7)], None)


async def test_a_listing_sees_a_moving_delivery_once(ledger: Ledger) -> None:
    """A row that moves from open to done between two pages is on exactly one of them."""
    await ledger.commit(Flush([open_row(delivery(number)) for number in range(10)]))
    first = await newest(ledger, ANY._replace(limit=5))
    moved = [finished(number) for number in range(10)]
    await ledger.commit(Flush(closed=[row.id for row in moved], finished=moved))
    second = await newest(ledger, ANY._replace(limit=10, before_id=first[-1].id))
    assert [row.position for row in (*first, *second)] == list(range(9, -1, -1))


async def test_copies_of_events_are_kept_as_long_as_they_are_needed(ledger: Ledger) -> None:
    record = Record(1, 1, delivery(1).event_id, "order.created", "/shop", "", NOW_MS, b"\x00\xff")
    assert kept_record(keep_record(record)) == record
    await ledger.commit(Flush([open_row(delivery(1)), open_row(delivery(1, "b"))]))
    await ledger.write(sqlite_trims.keep_payloads, [record])
    await ledger.write(sqlite_trims.keep_payloads, [record])
    place = Place(1, 1)
    assert [kept_record(raw) for raw in await ledger.read(sqlite_queries.payloads, [place, Place(2, 1)])] == [record]
    await ledger.commit(Flush(closed=[delivery(1).id], finished=[finished(1)]))
    assert await ledger.write(sqlite_trims.drop_payloads, (0, 0)) == (0, None)
    await ledger.commit(Flush(closed=[delivery(1, "b").id], finished=[finished(1, "b")]))
    assert await ledger.write(sqlite_trims.drop_payloads, (0, 0)) == (1, None)
    assert await ledger.read(sqlite_queries.payloads, [place]) == []


async def test_copies_are_looked_through_in_bounded_steps(ledger: Ledger) -> None:
    """However many copies are still needed, one step keeps the writer busy only for a moment."""
    events = [Record(number % 2, number, delivery(number).event_id, "order.created", "/shop", "", NOW_MS, b"") for number in range(1, 5001)]
    await ledger.commit(
        Flush([open_row(delivery(number, partition=number % 2)) for number in range(1, 5001) if number not in {1999, 3000}])
    )
    await ledger.write(sqlite_trims.keep_payloads, events)
    after: tuple[int, int] | None = (-1, 0)
    dropped, steps = 0, 0
    while after is not None:
        count, after = await ledger.write(sqlite_trims.drop_payloads, after)
        dropped, steps = dropped + count, steps + 1
    assert (dropped, steps) == (2, 3)
    kept = await ledger.read(sqlite_queries.payloads, [Place(number % 2, number) for number in range(1, 5001)])
    assert len(kept) == 4998


async def test_what_is_not_copied_yet_is_found(ledger: Ledger) -> None:
    """For each partition the query returns the lowest position that an unfinished delivery needs."""
    await ledger.commit(Flush([open_row(delivery(number)) for number in (1, 65, 129, 2)]))
    record = Record(1, 1, delivery(1).event_id, "order.created", "/shop", "", NOW_MS, b"")
    everywhere = [Place(partition, 0) for partition in range(PARTITIONS)]
    assert await ledger.read(sqlite_trims.first_uncopied, everywhere) == [Place(1, 1), Place(2, 2)]
    assert await ledger.read(sqlite_trims.needed_copies, 1, 0, 65, 10) == [Place(1, 1), Place(1, 65)]
    await ledger.write(sqlite_trims.keep_payloads, [record])
    assert await ledger.read(sqlite_trims.first_uncopied, everywhere) == [Place(1, 65), Place(2, 2)]
    assert await ledger.read(sqlite_trims.needed_copies, 1, 0, 1000, 10) == [Place(1, 65), Place(1, 129)]


async def test_a_half_recorded_event_is_not_released(ledger: Ledger) -> None:
    await ledger.commit(Flush(cursors={1: Cursor(1, 65, "evt_x", "sub_y"), 2: Cursor(2, 66, "evt_x", "")}))
    recorded = await ledger.read(sqlite_trims.recorded_through)
    assert recorded[1:3] == [Place(1, 64, following_id="evt_x"), Place(2, 66, "evt_x")]


async def test_unfinished_deliveries_of_old_events_are_found(ledger: Ledger) -> None:
    await ledger.commit(Flush([open_row(delivery(number)) for number in range(10)]))
    old = await ledger.read(sqlite_trims.expired, NOW_MS + 5, 3)
    assert [row.position for row in old] == [0, 1, 2]
    assert [row.position for row in await ledger.read(sqlite_trims.expired, NOW_MS + 5, 100)] == [0, 1, 2, 3, 4]
    assert await ledger.read(sqlite_trims.expired, -1, 100) == []


async def drop_all(ledger: Ledger, before_day: str) -> None:
    while await ledger.write(sqlite_trims.drop_days, before_day):
        pass


async def test_days_past_their_retention_go(ledger: Ledger) -> None:
    await ledger.commit(Flush(finished=[finished(number, day=number - 5) for number in range(6)]))
    await drop_all(ledger, day_of(NOW_MS - DAY_MS))
    assert [row.position for row in await rows(ledger)] == [5, 4]


async def test_a_delivery_of_a_day_that_has_gone_is_still_written(ledger: Ledger) -> None:
    """A flush may be so late after the disk was full for days, or after the clock went back."""
    await ledger.commit(Flush(finished=[finished(1, day=-5)]))
    await drop_all(ledger, day_of(NOW_MS))
    await ledger.commit(Flush(finished=[finished(2, day=-5)]))
    assert [row.position for row in await rows(ledger)] == [2]


async def test_beyond_its_size_the_oldest_finished_deliveries_go(ledger: Ledger) -> None:
    """Unfinished deliveries are never dropped."""
    large = [Attempt(0, 0, Outcome.STATUS, 500, "", "x" * 1000)]
    ended = [finished(number, day=number // 3000, attempts=large) for number in range(6000)]
    opened = [open_row(delivery(number)) for number in range(6000, 6100)]
    for start in range(0, 6000, 1000):
        await ledger.commit(Flush(opened if not start else [], finished=ended[start : start + 1000]))
    half = await ledger.read(used_bytes) // 2
    while await ledger.write(sqlite_trims.shrink, half):
        pass
    assert await ledger.read(used_bytes) <= half
    left = [row.position for row in await newest(ledger, ANY._replace(limit=10_000))]
    assert 1000 < len(left) < 4000
    assert left == list(range(6099, 6099 - len(left), -1))
    while await ledger.write(sqlite_trims.shrink, 0):
        pass
    assert await newest(ledger, ANY._replace(limit=10_000)) == opened[::-1]


async def test_a_file_of_another_service_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "delivery.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE something (id INTEGER)")
    connection.close()
    with pytest.raises(StartError, match="not one of this service"):
        async with open_ledger(path):
            pass


def test_every_text_of_an_attempt_is_stored() -> None:
    attempts: Sequence[Attempt] = [Attempt(1, 2, outcome, 599, "für \x00 \U0001f600", "\ufffd" * 1024) for outcome in Outcome]
    assert attempts_of(open_row(delivery(1, attempts=list(attempts))).attempts) == attempts
