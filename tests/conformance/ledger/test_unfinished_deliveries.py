"""Ledger, over every engine: what a lane, or the retention, reads back."""

from services.delivery.ledger.protocol import Flush, Ledger
from services.delivery.ledger.rows import DueNow
from tests.delivery.ledger.deliveries import NOW_MS, SUBSCRIPTION, finished, unfinished


async def test_a_lane_reads_back_by_position_and_then_by_due_time(ledger: Ledger) -> None:
    opened = [unfinished(number) for number in (5, 3, 4)]
    opened += [unfinished(1, due_ms=NOW_MS + 20), unfinished(2, due_ms=NOW_MS + 10), unfinished(9, "b")]
    await ledger.flush(Flush(opened))

    async def positions(due_by_ms: int | None, limit: int = 100) -> list[int]:
        return [row.position for row in await ledger.due_rows(SUBSCRIPTION, due_by_ms, limit)]

    assert await positions(NOW_MS + 20) == await positions(None) == [3, 4, 5, 2, 1]
    assert await positions(NOW_MS + 19) == [3, 4, 5, 2]
    assert await positions(0, limit=2) == [3, 4]
    assert await ledger.next_due_ms(SUBSCRIPTION, NOW_MS) == NOW_MS + 10
    assert await ledger.next_due_ms(SUBSCRIPTION, NOW_MS + 10) == NOW_MS + 20
    assert await ledger.next_due_ms(SUBSCRIPTION, NOW_MS + 20) is None
    assert await ledger.lanes() == [SUBSCRIPTION, "sub_" + "b" * 32]


async def test_unfinished_deliveries_of_old_events_are_found(ledger: Ledger) -> None:
    await ledger.flush(Flush([unfinished(number) for number in range(10)], finished=[finished(2, "b")]))
    assert [row.position for row in await ledger.expired_rows(NOW_MS + 5, 3)] == [0, 1, 2]
    assert [row.position for row in await ledger.expired_rows(NOW_MS + 5, 100)] == [0, 1, 2, 3, 4]
    assert await ledger.expired_rows(-1, 100) == []


async def test_rows_that_are_due_later_become_due_at_once(ledger: Ledger) -> None:
    """Neither another subscription's rows do, nor those that the same flush writes."""
    later_ms = NOW_MS + 1000
    await ledger.flush(
        Flush([unfinished(1, due_ms=later_ms), unfinished(2), unfinished(3, due_ms=later_ms), unfinished(4, "b", due_ms=later_ms)])
    )
    flush = Flush([unfinished(5, due_ms=later_ms)], [unfinished(3, due_ms=later_ms + 1)], due_now=[DueNow(SUBSCRIPTION, NOW_MS)])
    await ledger.flush(flush)
    rows = await ledger.due_rows(SUBSCRIPTION, None, 10)
    assert [(row.position, row.due_ms) for row in rows] == [(2, 0), (1, NOW_MS), (5, later_ms), (3, later_ms + 1)]
    assert await ledger.next_due_ms("sub_" + "b" * 32, NOW_MS) == later_ms


async def test_rows_that_have_failed_at_the_present_sink_keep_their_times(ledger: Ledger) -> None:
    """A row's latest failure counts."""
    former, present = (unfinished(number, due_ms=NOW_MS + 1000, failed_sink=sink) for number, sink in ((1, 7), (2, 8)))
    await ledger.flush(Flush([former, present, unfinished(3, due_ms=NOW_MS + 1000, failed_sink=7)]))
    await ledger.flush(Flush(updated=[unfinished(3, due_ms=NOW_MS + 2000, failed_sink=8)]))
    await ledger.flush(Flush(due_now=[DueNow(SUBSCRIPTION, NOW_MS, present_sink=8)]))
    rows = await ledger.due_rows(SUBSCRIPTION, None, 10)
    assert [(row.position, row.due_ms) for row in rows] == [(1, NOW_MS), (2, NOW_MS + 1000), (3, NOW_MS + 2000)]
