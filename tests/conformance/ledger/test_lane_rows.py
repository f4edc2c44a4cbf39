"""Ledger, over every engine: what lanes keep over a restart, how many rows they have, and the outbox of notices."""

from services.delivery.ledger.protocol import Flush, Ledger, WaitingCount
from services.delivery.ledger.rows import EndedRow, JobKey, JobRow, LaneRow, NoticeRow, OpenRow, RangeRow, WaitingRow
from services.delivery.model import State
from tests.delivery.ledger.deliveries import NOW_MS, delivery, finished, listed, unfinished
from tests.delivery.ledger.stores import LedgerStore

A, B = "sub_" + "a" * 32, "sub_" + "b" * 32
LANE = LaneRow(A, 3, NOW_MS + 30_000, 2, NOW_MS + 60_000, 17, NOW_MS, 2.5)
CONSUMER = "con_" + "c" * 32


def failed(number: int, at_sink: int) -> OpenRow:
    """Return the row of a delivery that has failed at the sink with a fingerprint."""
    return unfinished(number, due_ms=NOW_MS, failed_sink=at_sink)


def notice(number: int, consumer_id: str = CONSUMER) -> NoticeRow:
    """Return a notice made in the millisecond of its number."""
    return NoticeRow(f"notice-{number:05d}", consumer_id, b"\x00\xff", NOW_MS + number)


async def test_a_lane_is_remembered_over_a_restart(store: LedgerStore) -> None:
    async with store.open() as first:
        await first.take_lease("one")
        await first.flush(Flush(lanes=[LANE, LANE._replace(subscription_id=B)]))
        await first.flush(Flush(lanes=[LANE._replace(failures=18)], lanes_done=[B]))
    async with store.open() as second:
        assert await second.lane_rows() == [LANE._replace(failures=18)]


async def test_rows_are_counted_by_whether_they_were_attempted(ledger: Ledger) -> None:
    await ledger.flush(Flush([unfinished(1), unfinished(2), failed(3, at_sink=7), unfinished(4, "b")], finished=[finished(5)]))
    assert await ledger.waiting_counts() == [WaitingCount(A, 2, 1, 7), WaitingCount(B, 1, 0, 0)]


async def test_a_count_names_the_sink_only_if_all_rows_have_failed_there(ledger: Ledger) -> None:
    await ledger.flush(Flush([failed(1, at_sink=7), failed(2, at_sink=7)]))
    assert [count.failed_sink for count in await ledger.waiting_counts()] == [7]
    await ledger.flush(Flush(updated=[failed(1, at_sink=8)]))
    assert [count.failed_sink for count in await ledger.waiting_counts()] == [0]


async def test_an_ordered_lane_s_rows_are_found_in_order(ledger: Ledger) -> None:
    """Rows are listed whatever their due times are, with a key and without. No row of another lane is listed."""
    rows = [unfinished(number, order_key=b"k", due_ms=100 - number) for number in range(5)]
    rows += [unfinished(6, order_key=b"other"), unfinished(7)]
    await ledger.flush(Flush([*rows, unfinished(8, "b", order_key=b"k")], finished=[finished(9)]))
    assert await ledger.ordered_rows(A) == [WaitingRow(row.id, row.order_key, row.position, row.due_ms) for row in rows]


async def test_unfinished_rows_are_found_by_their_ids(ledger: Ledger) -> None:
    """In order of position, whatever the order of the ids is; finished and unknown ones are left out."""
    one, two, three, done = unfinished(1), unfinished(2, "b"), unfinished(3), finished(4)
    await ledger.flush(Flush([one, two, three], finished=[done]))
    assert await ledger.open_rows([three.id, done.id, two.id, b"unknown"]) == [two, three]
    assert await ledger.open_rows([]) == []


async def test_a_row_keeps_its_job_key_and_slot(ledger: Ledger) -> None:
    row = unfinished(1, job_id="rpl_x", order_key=b"\x00k")
    assert row.slot == 0xAA
    await ledger.flush(Flush([row], finished=[finished(2, job_id="start")]))
    assert await listed(ledger) == [finished(2, job_id="start"), row]


async def test_notices_leave_the_outbox_once_they_are_published(ledger: Ledger) -> None:
    """The oldest come first; the same notice again is the same notice."""
    for _ in range(2):
        await ledger.flush(Flush(notices=[notice(2), notice(1), notice(3)]))
    assert await ledger.outbox_page(2) == [notice(1), notice(2)]
    await ledger.forget_notices([notice(1).id, notice(3).id])
    assert await ledger.outbox_page(10) == [notice(2)]


async def test_notices_are_counted_by_consumer_and_a_later_form_replaces_an_earlier_one(ledger: Ledger) -> None:
    await ledger.flush(Flush(notices=[notice(1), notice(2), notice(3, "con_other")]))
    await ledger.flush(Flush(notices=[notice(2)._replace(notice=b"later")]))
    assert await ledger.outbox_counts() == {CONSUMER: 2, "con_other": 1}
    assert await ledger.outbox_page(10) == [notice(1), notice(2)._replace(notice=b"later"), notice(3, "con_other")]


async def test_a_deleted_subscription_leaves_only_what_has_ended(ledger: Ledger) -> None:
    """One flush ends its rows and ranges, and forgets its jobs and its lane."""
    behind, job = RangeRow(A, "", 0, (5,), None, NOW_MS), JobRow(A, "rpl_x", "running", (3,), (9,), 0, 0, 0)
    await ledger.flush(
        Flush([unfinished(1), unfinished(2, "b")], ranges=[behind, behind._replace(subscription_id=B)], jobs=[job], lanes=[LANE])
    )
    row = finished(1, state=State.CANCELLED)
    ended = EndedRow(A, "", State.CANCELLED, (5,), (8,), 3, NOW_MS)
    flush = Flush(
        closed=[delivery(1).id], finished=[row], ranges_done=[behind.key], ended=[ended], jobs_done=[JobKey(A, "rpl_x")], lanes_done=[A]
    )
    for _ in range(2):
        await ledger.flush(flush)
        assert await listed(ledger) == [unfinished(2, "b"), row]
        assert await ledger.ranges() == [behind._replace(subscription_id=B)]
        assert await ledger.ended(A) == [ended]
        assert (await ledger.jobs(), await ledger.lane_rows()) == ([], [])
