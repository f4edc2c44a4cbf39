"""Ledger, over every engine: owed and ended ranges, jobs, and events set aside."""

import itertools
import random

import pytest

from services.delivery.errors import LedgerInvariantError
from services.delivery.ledger.protocol import Flush, Ledger
from services.delivery.ledger.rows import EndedRow, JobKey, JobRow, LaneRow, NoticeRow, RangeRow, SetAsideRow
from services.delivery.model import State
from services.runtime import failpoints
from services.runtime.consumer_scope import EVERYONE, OwnConsumer
from tests.delivery.ledger.deliveries import NOW_MS, finished, listed, record, unfinished
from tests.delivery.ledger.stores import LedgerStore

A, B = "sub_" + "a" * 32, "sub_" + "b" * 32
BEHIND = RangeRow(A, "", 0, (5,), None, NOW_MS, "con_" + "c" * 32)
NO_LIMIT = 1 << 50


class CrashError(Exception):
    """Stands for the end of the process."""


def ended(after: int, through: int, *, about: int = 1, reason: State = State.CANCELLED, time_ms: int = NOW_MS) -> EndedRow:
    """Return an ended range of lane A."""
    return EndedRow(A, "", reason, (after,), (through,), about, time_ms)


async def test_a_range_begins_moves_and_ends(ledger: Ledger) -> None:
    await ledger.flush(Flush(ranges=[BEHIND, RangeRow(B, "start", 1, (0,), (9,), NOW_MS)]))
    assert await ledger.ranges() == [BEHIND, RangeRow(B, "start", 1, (0,), (9,), NOW_MS)]
    await ledger.flush(Flush(ranges=[BEHIND._replace(at=(7,))]))
    await ledger.flush(Flush(ranges=[BEHIND._replace(at=(7,), until=(12,))]))
    assert (await ledger.ranges())[0] == BEHIND._replace(at=(7,), until=(12,))
    await ledger.flush(Flush(ranges_done=[BEHIND.key]))
    assert await ledger.ranges() == [RangeRow(B, "start", 1, (0,), (9,), NOW_MS)]


async def test_a_range_ends_and_another_of_its_key_begins_in_one_flush(ledger: Ledger) -> None:
    """The same flush again changes nothing."""
    await ledger.flush(Flush(ranges=[BEHIND._replace(at=(9,), until=(9,))]))
    flush = Flush(ranges=[BEHIND], ranges_done=[BEHIND.key])
    for _ in range(2):
        await ledger.flush(flush)
        assert await ledger.ranges() == [BEHIND]


@pytest.mark.parametrize(
    ("standing", "written"),
    [
        (BEHIND, BEHIND._replace(at=(4,))),
        (BEHIND._replace(until=(9,)), BEHIND),
        (BEHIND._replace(until=(9,)), BEHIND._replace(until=(10,))),
        (BEHIND._replace(at=(5, 7)), BEHIND._replace(at=(6, 6))),
        (BEHIND._replace(at=(5, 7)), BEHIND._replace(at=(6,))),
    ],
    ids=["back", "endless again", "another end", "back in one shard", "another number of shards"],
)
async def test_a_range_that_would_go_back_fails_the_whole_flush(ledger: Ledger, standing: RangeRow, written: RangeRow) -> None:
    """The error names the range and its values. No other part of the flush is written."""
    await ledger.flush(Flush(ranges=[standing]))
    other = BEHIND._replace(subscription_id=B)
    with pytest.raises(LedgerInvariantError) as raised:
        await ledger.flush(Flush([unfinished(1)], finished=[finished(2)], ranges=[other, written]))
    assert A in str(raised.value)
    assert str(list(standing.at)) in str(raised.value)
    assert str(list(written.at)) in str(raised.value)
    assert await listed(ledger) == []
    assert await ledger.ranges() == [standing]


async def test_the_lowest_place_of_all_ranges_is_found_shard_by_shard(ledger: Ledger) -> None:
    assert await ledger.lowest_owed() is None
    await ledger.flush(Flush(ranges=[BEHIND._replace(at=(5, 100)), RangeRow(B, "", 0, (70, 9), None, NOW_MS)]))
    assert await ledger.lowest_owed() == (5, 9)


async def test_any_number_of_ranges_moves_in_one_flush(ledger: Ledger) -> None:
    rows = [RangeRow(f"sub_{number:032x}", "", 0, (number,), None, NOW_MS) for number in range(1001)]
    await ledger.flush(Flush(ranges=rows))
    moved = [row._replace(at=(row.at[0] + 1,)) for row in rows]
    await ledger.flush(Flush(ranges=moved))
    assert await ledger.ranges() == moved


async def test_jobs_are_kept_until_they_are_deleted(ledger: Ledger) -> None:
    job, other = JobRow(A, "rpl_x", "running", (3,), (9,), 0, 0, 0), JobRow(A, "start", "running", (3,), None, 0, 0, 0)
    await ledger.flush(Flush(jobs=[job, other]))
    await ledger.flush(Flush(jobs=[job._replace(state="done", handed=6, finished=5, failed=1)]))
    assert await ledger.jobs() == [job._replace(state="done", handed=6, finished=5, failed=1), other]
    await ledger.flush(Flush(jobs_done=[JobKey(A, "rpl_x")]))
    assert await ledger.jobs() == [other]


async def test_ended_ranges_that_touch_become_one(ledger: Ledger) -> None:
    """Other reasons, jobs and subscriptions stay apart. The same range again changes nothing, also after it has become part of another."""
    other = ended(5, 9, reason=State.EXHAUSTED)
    await ledger.flush(Flush(ended=[ended(0, 5), other, ended(9, 12)]))
    assert await ledger.ended(A) == [ended(0, 5), other, ended(9, 12)]
    for _ in range(2):
        await ledger.flush(Flush(ended=[ended(5, 9, about=3, time_ms=NOW_MS + 7)]))
        assert await ledger.ended(A) == [ended(0, 12, about=5, time_ms=NOW_MS + 7), other]
    await ledger.flush(Flush(ended=[ended(20, 30), ended(30, 31)._replace(job_id="rpl_x")]))
    assert await ledger.ended(A) == [
        ended(0, 12, about=5, time_ms=NOW_MS + 7),
        other,
        ended(20, 30),
        ended(30, 31)._replace(job_id="rpl_x"),
    ]
    assert await ledger.ended(B) == []


@pytest.mark.parametrize("seed", range(3))
async def test_ended_ranges_cover_exactly_what_ended(ledger: Ledger, seed: int) -> None:
    """In whatever order the parts end, and whichever flush is repeated, each position is found once if it ended, and never otherwise."""
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(60), 16))
    parts = [ended(after, through, about=through - after) for after, through in itertools.pairwise(cuts) if chance.random() < 0.7]
    order = [*parts, *chance.sample(parts, 3)]
    chance.shuffle(order)
    for part in order:
        await ledger.flush(Flush(ended=[part]))
    rows = await ledger.ended(A)
    assert all(one.through < other.after for one, other in itertools.pairwise(rows)), "neighbours have merged"
    assert sum(row.about for row in rows) == sum(part.about for part in parts)
    for position in range(62):
        expected = any(part.after[0] < position <= part.through[0] for part in parts)
        assert len(await ledger.ended_at(EVERYONE, 0, position, 10)) == expected, position


async def test_an_owner_finds_what_ended_without_rows_and_no_one_elses(ledger: Ledger) -> None:
    owner, other = "con_" + "1" * 32, "con_" + "2" * 32
    parts = [
        ended(0, 5, about=3)._replace(consumer_id=owner),
        ended(9, 12, about=2)._replace(consumer_id=owner),
        ended(12, 13, reason=State.EXHAUSTED)._replace(consumer_id=owner),
        ended(0, 9, about=7)._replace(subscription_id=B, consumer_id=other),
    ]
    await ledger.flush(Flush(ended=parts))
    assert await ledger.ended_totals(EVERYONE, "") == {State.CANCELLED: 12, State.EXHAUSTED: 1}
    assert await ledger.ended_totals(OwnConsumer(owner), "") == {State.CANCELLED: 5, State.EXHAUSTED: 1}
    assert await ledger.ended_totals(OwnConsumer(owner), A) == {State.CANCELLED: 5, State.EXHAUSTED: 1}
    assert await ledger.ended_totals(OwnConsumer(owner), B) == {}
    assert await ledger.ended_totals(EVERYONE, B) == {State.CANCELLED: 7}
    assert await ledger.ended_at(EVERYONE, 0, 3, 10) == [parts[0], parts[3]]
    assert await ledger.ended_at(OwnConsumer(other), 0, 3, 10) == [parts[3]]
    assert await ledger.ended_at(OwnConsumer(other), 0, 10, 10) == []
    assert await ledger.ended_at(EVERYONE, 0, 3, 1) == [parts[0]]


async def test_an_event_set_aside_keeps_its_first_reason(ledger: Ledger) -> None:
    row = SetAsideRow(1, 0, 7, record(7).event_id, "routing crashed", NOW_MS)
    await ledger.flush(Flush(set_aside=[row]))
    await ledger.flush(Flush(set_aside=[row._replace(reason="again", time_ms=NOW_MS + 1), row._replace(position=8, time_ms=NOW_MS + 2)]))
    assert await ledger.set_aside(10) == [row._replace(position=8, time_ms=NOW_MS + 2), row]
    assert await ledger.set_aside(1) == [row._replace(position=8, time_ms=NOW_MS + 2)]


async def test_a_trim_drops_what_ended_before_the_retention(ledger: Ledger) -> None:
    """Owed ranges and jobs are never dropped by a trim."""
    job, aside = JobRow(A, "rpl_x", "done", (3,), (9,), 1, 1, 0), SetAsideRow(1, 0, 7, "evt_x", "", NOW_MS - 1)
    old, new = ended(0, 5, time_ms=NOW_MS - 1), ended(6, 9)
    await ledger.flush(Flush(ranges=[BEHIND], jobs=[job], ended=[old, new], set_aside=[aside, aside._replace(position=8, time_ms=NOW_MS)]))
    await ledger.trim(before_ms=None, bytes_max=NO_LIMIT)
    assert await ledger.ended(A) == [old, new]
    await ledger.trim(before_ms=NOW_MS, bytes_max=NO_LIMIT)
    assert await ledger.ended(A) == [new]
    assert [row.position for row in await ledger.set_aside(10)] == [8]
    assert (await ledger.ranges(), await ledger.jobs()) == ([BEHIND], [job])


async def test_a_row_takes_its_event_in_the_same_flush(store: LedgerStore, ledger: Ledger) -> None:
    await ledger.flush(Flush([unfinished(1)], copies=[record(1)]))
    await ledger.flush(Flush(copies=[record(1)]))
    assert list(store.copies().values()) == [record(1)]


@pytest.mark.parametrize(("point", "is_written"), [("ledger.before_commit", False), ("ledger.after_commit", True)])
async def test_a_crash_around_the_commit_leaves_all_of_a_flush_or_nothing(
    store: LedgerStore, monkeypatch: pytest.MonkeyPatch, point: str, *, is_written: bool
) -> None:
    """Rows, ranges, lanes and notices stand or fall together. The next worker may write the same flush again."""
    lane, note = LaneRow(A, 1, 2, 3, 4, 5, 6, 0.5), NoticeRow("n", "con_c", b"{}", NOW_MS)
    begun = BEHIND._replace(subscription_id=B)
    flush = Flush([unfinished(1)], ranges=[begun], ranges_done=[BEHIND.key], ended=[ended(5, 9)], lanes=[lane], notices=[note])

    async def state(ledger: Ledger) -> list[object]:
        return [
            await listed(ledger),
            await ledger.ranges(),
            await ledger.ended(A),
            await ledger.lane_rows(),
            await ledger.outbox_page(9),
        ]

    def crash(reached: str) -> None:
        if reached == point:
            raise CrashError

    before, after = [[], [BEHIND], [], [], []], [[unfinished(1)], [begun], [ended(5, 9)], [lane], [note]]
    async with store.open() as first:
        await first.take_lease("one")
        await first.flush(Flush(ranges=[BEHIND]))
        monkeypatch.setattr(failpoints, "reached", crash)
        with pytest.raises(CrashError):
            await first.flush(flush)
        monkeypatch.undo()
    async with store.open() as second:
        await second.take_lease("two")
        assert await state(second) == (after if is_written else before)
        await second.flush(flush)
        assert await state(second) == after
