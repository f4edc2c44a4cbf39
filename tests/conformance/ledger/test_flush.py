"""Ledger, over every engine: one flush is one transaction, and a finished delivery never changes."""

from dataclasses import replace

import pytest

from services.delivery.errors import LedgerFullError
from services.delivery.ledger.protocol import Flush, Ledger, Takeover
from services.delivery.ledger.rows import DoneRow, RoutingNote, decode_attempts, done_row, open_row
from services.delivery.model import Attempt, State
from services.delivery.transport.protocol import Outcome
from services.runtime.consumer_scope import EVERYONE
from tests.delivery.ledger.deliveries import NOW_MS, cursor_at, delivery, finished, listed, unfinished
from tests.delivery.ledger.stores import LedgerStore

LARGE = [Attempt(0, 0, Outcome.STATUS, 500, "", "x" * 1000)]


async def test_a_flush_is_there_whole(store: LedgerStore, ledger: Ledger) -> None:
    await ledger.flush(Flush([unfinished(1)], finished=[finished(2)], cursors=[cursor_at(65, "evt_x", "sub_y")]))
    assert await listed(ledger) == [finished(2), unfinished(1)]
    assert store.cursor() == cursor_at(65, "evt_x", "sub_y")


async def test_a_delivery_moves_from_unfinished_to_finished_in_one_step(ledger: Ledger) -> None:
    attempted = delivery(1, attempts=[Attempt(NOW_MS, 12, Outcome.STATUS, 500, "the server answered 500", "für")], due_ms=NOW_MS + 5000)
    await ledger.flush(Flush([unfinished(1)]))
    await ledger.flush(Flush(updated=[open_row(attempted)]))
    assert await listed(ledger) == [open_row(attempted)]
    ended = replace(attempted, state=State.DELIVERED, finished_ms=NOW_MS + 6000)
    await ledger.flush(Flush(closed=[ended.id], finished=[done_row(ended)]))
    assert await listed(ledger) == [done_row(ended)]
    found = await ledger.find(EVERYONE, ended.id)
    assert isinstance(found, DoneRow)
    assert decode_attempts(found.attempts) == attempted.attempts


async def test_a_terminal_state_never_changes(ledger: Ledger) -> None:
    await ledger.flush(Flush(finished=[finished(1)]))
    await ledger.flush(Flush(finished=[finished(1, state=State.CANCELLED)]))
    assert await listed(ledger) == [finished(1)]


async def test_a_row_that_is_there_is_not_begun_anew(ledger: Ledger) -> None:
    """Routing an event again keeps the attempts that were made."""
    attempted = unfinished(1, due_ms=NOW_MS + 5000)
    await ledger.flush(Flush([attempted]))
    await ledger.flush(Flush([unfinished(1)]))
    assert await listed(ledger) == [attempted]


async def test_the_same_flush_again_changes_nothing(store: LedgerStore, ledger: Ledger) -> None:
    """Whoever does not know whether a flush was written may repeat it."""
    await ledger.flush(Flush([unfinished(1), unfinished(2)]))
    flush = Flush(
        [unfinished(3)], [unfinished(2, due_ms=NOW_MS)], [unfinished(1).id], [finished(1), finished(4)], [cursor_at(4, "evt_x")], NOW_MS
    )
    await ledger.flush(flush)
    once = await listed(ledger), store.cursor()
    await ledger.flush(flush)
    assert (await listed(ledger), store.cursor()) == once
    assert once[0] == [finished(4), unfinished(3), unfinished(2, due_ms=NOW_MS), finished(1)]


async def test_a_flush_takes_any_number_of_rows(ledger: Ledger) -> None:
    opened = [unfinished(number) for number in range(1001)]
    await ledger.flush(Flush(opened, finished=[finished(number, "b") for number in range(999)]))
    assert len(await listed(ledger)) == 2000


async def test_on_a_full_disk_nothing_is_written_until_there_is_room(store: LedgerStore, ledger: Ledger) -> None:
    """The same flush can be repeated; no part of it was written before, also not the place of a new day's deliveries."""
    await store.fill(ledger, full=True)
    flush = Flush([unfinished(200)], finished=[finished(each, attempts=LARGE) for each in range(100)], cursors=[cursor_at(65)])
    for _ in range(3):
        with pytest.raises(LedgerFullError):
            await ledger.flush(flush)
        assert await listed(ledger) == []
        assert store.cursor() == cursor_at(0)
    await store.fill(ledger, full=False)
    await ledger.flush(flush)
    assert len(await listed(ledger)) == 101
    assert store.cursor() == cursor_at(65)


async def test_after_a_restart_everything_is_as_it_was(store: LedgerStore) -> None:
    async with store.open() as first:
        assert await first.take_lease("one") == Takeover([cursor_at(0)], "", 0, 0)
        flush = Flush([unfinished(1)], finished=[finished(2)], cursors=[cursor_at(9, "evt_x", "sub_y")], written_ms=NOW_MS)
        await first.flush(flush)
        await first.flush(Flush(finished=[finished(3)], written_ms=NOW_MS + 5))
        await first.set_log_id("a log")
        await first.set_clock_jump(-3000)
        await first.note_routing(RoutingNote(9, "sub_y", 1))
        await first.note_routing(RoutingNote(9, "sub_y", 2, 10, "evt_y"))
    async with store.open() as second:
        takeover = await second.take_lease("two")
        assert takeover.groups == [cursor_at(9, "evt_x", "sub_y")]
        # The due times are as old as the last flush that had unfinished deliveries.
        assert takeover[1:5] == ("a log", -3000, NOW_MS, RoutingNote(9, "sub_y", 2, 10, "evt_y"))
        assert await listed(second) == [finished(3), finished(2), unfinished(1)]
        await second.flush(Flush(finished=[finished(4)]))
        assert len(await listed(second)) == 4
