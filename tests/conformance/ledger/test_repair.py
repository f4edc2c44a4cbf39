"""Ledger, over every engine: cursors, rows and copies after log and ledger did not fit together."""

from services.delivery.ledger.protocol import Flush, Ledger
from services.delivery.ledger.rows import EndedRow, RangeRow, SetAsideRow
from services.delivery.model import State
from services.eventlog.record import ShardPosition
from tests.delivery.ledger.deliveries import NOW_MS, cursor_at, delivery, record, unfinished
from tests.delivery.ledger.stores import LedgerStore


async def test_a_repair_moves_what_the_log_no_longer_holds_out_of_the_way(store: LedgerStore, ledger: Ledger) -> None:
    """Rows and copies keep their order and belong together still; other shards stay as they are."""
    rows = [*(unfinished(number) for number in (1, 65, 129)), unfinished(2, shard=1)]
    await ledger.flush(Flush(rows, cursors=[cursor_at(129, "evt_x", "sub_y")]))
    await ledger.keep_copies([record(65)])
    assert await ledger.count_lost({0: 1, 1: 2}) == 1
    assert await ledger.count_lost({0: 0, 1: 0}) == 3
    await ledger.repair("another log", [cursor_at(1, "evt_z")], {0: 1})
    takeover = await ledger.take_lease("one")
    assert (takeover.log_id, takeover.groups) == ("another log", [cursor_at(1, "evt_z")])
    positions = {row.event_id: row.position for row in store.open_rows()}
    assert positions[delivery(1).event_id] == 1
    assert positions[delivery(2).event_id] == 2
    moved, last = positions[delivery(65).event_id], positions[delivery(129).event_id]
    assert moved < last < 1
    assert await ledger.copies([ShardPosition(0, moved)]) == [record(65)]


async def test_after_a_repair_every_range_lies_in_what_the_log_holds_and_below_the_cursor(ledger: Ledger) -> None:
    """A range that is wholly in what the log holds stays; nothing that routing will hand over lies in a range as well."""
    behind = RangeRow("sub_" + "a" * 32, "", 0, (5,), None, NOW_MS)
    rows = {
        "behind, held": (behind, (5,), None),
        "behind, gone": (behind._replace(subscription_id="sub_bb", at=(25,)), (20,), None),
        "joining, held": (behind._replace(subscription_id="sub_cc", until=(9,)), (5,), (9,)),
        "joining, partly gone": (behind._replace(subscription_id="sub_dd", until=(27,)), (5,), (20,)),
        "joining, gone": (behind._replace(subscription_id="sub_ee", at=(22,), until=(27,)), (20,), (20,)),
        "joining, and behind again": (behind._replace(subscription_id="sub_ee", seq=1, at=(27,)), (20,), None),
        "a job, partly gone": (behind._replace(subscription_id="sub_ff", job_id="rpl_1", until=(27,)), (5,), (18,)),
    }
    ended = [EndedRow("sub_aa", "", State.CANCELLED, (after,), (after + 4,), 1, NOW_MS) for after in (0, 16, 24)]
    aside = [SetAsideRow(1, 0, position, "evt_x", "crashed", NOW_MS) for position in (7, 19)]
    await ledger.flush(Flush(ranges=[row for row, _, _ in rows.values()], ended=ended, set_aside=aside))
    await ledger.repair("a log", [cursor_at(21, "evt_y", "sub_y")], {0: 18})
    by_key = {row.key: row for row in await ledger.ranges()}
    assert {name: (by_key[row.key].at, by_key[row.key].until) for name, (row, _, _) in rows.items()} == {
        name: (at, until) for name, (_, at, until) in rows.items()
    }
    assert await ledger.ended("sub_aa") == [ended[0], ended[1]._replace(through=(18,))]
    assert [row.position for row in await ledger.set_aside(10)] == [7]


async def test_a_repair_that_goes_back_takes_ranges_back_with_it(ledger: Ledger) -> None:
    """No range begins above the place that is recorded."""
    behind = RangeRow("sub_aa", "", 0, (12,), None, NOW_MS)
    await ledger.flush(Flush(ranges=[behind, behind._replace(subscription_id="sub_bb", until=(15,))], cursors=[cursor_at(20, "evt_x")]))
    await ledger.repair("a log", [cursor_at(10, "evt_y")], {0: 20})
    assert [(row.at, row.until) for row in await ledger.ranges()] == [((10,), None), ((10,), (10,))]
