"""Ledger, over every engine: a worker without the lease writes nothing."""

import pytest

from services.delivery.errors import LeaseLostError
from services.delivery.ledger.protocol import Flush
from tests.delivery.ledger.deliveries import NOW_MS, cursor_at, finished, listed, record, unfinished
from tests.delivery.ledger.stores import LedgerStore


async def test_a_worker_whose_lease_was_taken_writes_nothing(store: LedgerStore) -> None:
    """Only the worker that took the lease last writes, also if both have the same name; the other cannot even write the ledger's state."""
    async with store.open() as first, store.open_beside() as second:
        await first.take_lease("worker")
        await first.flush(Flush([unfinished(1)], finished=[finished(1, "b", day=-9)], cursors=[cursor_at(1)]))
        assert (await second.take_lease("worker")).groups == [cursor_at(1)]
        before = await listed(second), store.cursor(), store.copies()
        for write in (
            first.flush(Flush([unfinished(2)], finished=[finished(3)], cursors=[cursor_at(2)])),
            first.set_log_id("a log"),
            first.set_clock_jump(1),
            first.keep_copies([record(1)]),
            first.trim(before_ms=NOW_MS, bytes_max=0),
            first.repair("a log", [cursor_at(5)], {0: 0}),
        ):
            with pytest.raises(LeaseLostError):
                await write
        assert (await listed(second), store.cursor(), store.copies()) == before
        await second.flush(Flush(finished=[finished(3)]))
        assert len(await listed(second)) == 3
        assert (await second.take_lease("worker"))[1:3] == ("", 0)


async def test_a_worker_without_a_lease_writes_nothing(store: LedgerStore) -> None:
    async with store.open() as ledger:
        with pytest.raises(LeaseLostError):
            await ledger.flush(Flush(finished=[finished(1)]))
        assert await listed(ledger) == []
