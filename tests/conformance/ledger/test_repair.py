"""Ledger, over every engine: cursors, rows and copies after log and ledger did not fit together."""

from services.delivery.ledger.protocol import Flush, Ledger, RepairedCursor, ShardCursor
from services.eventlog.record import ShardPosition
from tests.delivery.ledger.deliveries import cursor_at, delivery, record, unfinished
from tests.delivery.ledger.stores import LedgerStore


async def test_a_repair_moves_what_the_log_no_longer_holds_out_of_the_way(store: LedgerStore, ledger: Ledger) -> None:
    """Rows and copies keep their order and belong together still; other shards stay as they are."""
    rows = [*(unfinished(number) for number in (1, 65, 129)), unfinished(2, shard=1)]
    await ledger.flush(Flush(rows, cursors=[cursor_at(129, "evt_x", "sub_y")]))
    await ledger.keep_copies([record(65)])
    assert await ledger.count_lost({0: 1, 1: 2}) == 1
    assert await ledger.count_lost({0: 0, 1: 0}) == 3
    await ledger.repair("another log", [RepairedCursor(ShardCursor(0, 1, "evt_z", ""), 1)])
    takeover = await ledger.take_lease("one")
    assert (takeover.log_id, takeover.groups) == ("another log", [cursor_at(1, "evt_z")])
    positions = {row.event_id: row.position for row in store.open_rows()}
    assert positions[delivery(1).event_id] == 1
    assert positions[delivery(2).event_id] == 2
    moved, last = positions[delivery(65).event_id], positions[delivery(129).event_id]
    assert moved < last < 1
    assert await ledger.copies([ShardPosition(0, moved)]) == [record(65)]
