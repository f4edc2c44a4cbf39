"""Ledger, over every engine: cursors, rows and copies after log and ledger did not fit together."""

from services.delivery.ledger.protocol import Cursor, Flush, Ledger, RepairedCursor
from services.eventlog.record import Place, Record
from tests.delivery.ledger.deliveries import delivery, record, unfinished
from tests.delivery.ledger.stores import LedgerStore


async def test_a_repair_moves_what_the_log_no_longer_holds_out_of_the_way(store: LedgerStore, ledger: Ledger) -> None:
    """Rows and copies keep their order and belong together still; other partitions stay as they are."""
    await ledger.flush(Flush([unfinished(number) for number in (1, 65, 129, 2)], cursors=[Cursor(1, 129, "evt_x", "sub_y")]))
    await ledger.keep_copies([record(65)])
    assert await ledger.count_lost({1: 1, 2: 2}) == 1
    assert await ledger.count_lost({1: 0, 2: 0}) == 3
    await ledger.repair("another log", [RepairedCursor(Cursor(1, 1, "evt_z", ""), 1)])
    takeover = await ledger.take_lease("one")
    assert (takeover.log_id, takeover.cursors[1], takeover.cursors[2]) == ("another log", Cursor(1, 1, "evt_z", ""), Cursor(2, 0, "", ""))
    positions = {row.event_id: row.position for row in store.open_rows()}
    assert positions[delivery(1).event_id] == 1
    assert positions[delivery(2).event_id] == 2
    moved, last = positions[delivery(65).event_id], positions[delivery(129).event_id]
    assert moved < last < 1
    assert await ledger.copies([Place(1, moved)]) == [Record(1, 65, *record(65)[2:])]
