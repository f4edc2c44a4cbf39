"""Ledger reader: what it says of a file that another process owns."""

from pathlib import Path

from services.delivery.ledger.protocol import Flush
from services.delivery.ledger.rows import OpenRow
from services.delivery.ledger.sqlite.ledger import open_ledger
from services.delivery.ledger.sqlite.ledger_reader import open_ledger_reader
from services.runtime.consumer_scope import EVERYONE
from tests.delivery.ledger.deliveries import ALL, NOW_MS, finished, unfinished


async def test_due_times_are_by_the_wall_clock_after_it_has_jumped(tmp_path: Path) -> None:
    path, retried, new, done = tmp_path / "delivery.db", unfinished(3, due_ms=NOW_MS), unfinished(2), finished(1)
    async with open_ledger(path) as ledger:
        await ledger.take_lease("one")
        await ledger.flush(Flush([retried, new], finished=[done], written_ms=NOW_MS))
        async with open_ledger_reader(path) as reader:
            assert (await reader.page(ALL)).rows == [retried, new, done]
        await ledger.set_clock_jump(-5_000)
        async with open_ledger_reader(path) as reader:
            later = retried._replace(due_ms=NOW_MS - 5_000)
            assert (await reader.page(ALL)).rows == [later, new, done]
            found = await reader.find(EVERYONE, retried.id)
            assert isinstance(found, OpenRow)
            assert found == later
            assert await reader.find(EVERYONE, done.id) == done
