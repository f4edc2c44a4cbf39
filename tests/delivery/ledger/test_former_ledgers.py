"""Former ledgers: deliveries that ended in files without an owner are listed, and are dropped with their day."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from services.delivery.ledger.protocol import Flush, Page
from services.delivery.ledger.rows import DoneRow
from services.delivery.ledger.sqlite.former_ledgers import merged
from services.delivery.ledger.sqlite.ledger import open_ledger
from services.delivery.ledger.sqlite.ledger_cut import ensure_cut
from services.delivery.ledger.sqlite.ledger_files import ledger_file, numbers_there
from services.runtime.consumer_scope import EVERYONE
from services.runtime.database import sole_owner
from tests.delivery.ledger.deliveries import ALL, DAY_MS, NOW_MS, finished, listed, unfinished


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    """The ledger of one worker, beside the files of two former workers in which deliveries have ended on different days."""
    path = tmp_path / "delivery.db"
    for number, file in enumerate(ensure_cut(path, 3)):
        async with open_ledger(file) as ledger:
            await ledger.take_lease("one")
            await ledger.flush(Flush([unfinished(30 + number, "06f"[number])], finished=rows_of(number)))
    assert ensure_cut(path, 1) == [path]
    return path


def rows_of(number: int) -> list[DoneRow]:
    """Return the finished deliveries of a file; the events of the files alternate."""
    return [finished(each, "06f"[number], day=number) for each in range(number, 24, 3)]


async def test_deliveries_of_former_files_are_found_and_listed_among_the_others(database: Path) -> None:
    """However small the pages are, each delivery is on one of them, the newest event first."""
    everything = [unfinished(30 + number, "06f"[number]) for number in range(3)] + [row for number in range(3) for row in rows_of(number)]
    async with open_ledger(database) as ledger:
        newest = sorted(everything, key=lambda row: row.id, reverse=True)
        assert await listed(ledger) == newest
        assert await listed(ledger, ALL._replace(limit=2)) == newest
        assert [await ledger.find(EVERYONE, row.id) for row in newest] == newest


async def test_a_former_file_goes_with_its_last_day(database: Path) -> None:
    assert numbers_there(database) == {0, 1, 2}
    async with open_ledger(database) as ledger:
        await ledger.take_lease("one")
        for days, left in ((1, {0, 1, 2}), (2, {0, 2}), (3, {0})):
            trimmed = await ledger.trim(before_ms=NOW_MS + days * DAY_MS, bytes_max=1 << 40)
            assert trimmed.deliveries == 8
            assert numbers_there(database) == left
        assert await listed(ledger) == [unfinished(30 + number, "06f"[number]) for number in (2, 1, 0)]
    assert sorted(path.name for path in database.parent.iterdir()) == ["delivery.db", "delivery.db.lock"]
    assert ensure_cut(database, 1) == [database]


async def test_a_former_file_that_another_process_has_open_stays(database: Path) -> None:
    async with open_ledger(database) as ledger:
        await ledger.take_lease("one")
        with sole_owner(ledger_file(database, 1)):
            await ledger.trim(before_ms=NOW_MS + 9 * DAY_MS, bytes_max=1 << 40)
            assert numbers_there(database) == {0, 1}


@pytest.mark.parametrize(
    ("pages", "expected", "before"),
    [
        ([([9, 5], None), ([7], None)], [9, 7, 5], None),
        ([([9, 5], 5), ([7, 3], None)], [9, 7, 5], 5),
        ([([9, 8], 8), ([7, 6], 6)], [9, 8], 8),
        ([([9, 8, 2], None), ([7, 6], None)], [9, 8, 7], 7),
        ([([], 4), ([7, 3], None)], [7], 4),
    ],
)
def test_pages_are_merged_up_to_where_the_first_of_them_ends(
    pages: Sequence[tuple[list[int], int | None]], expected: list[int], before: int | None
) -> None:
    def page(numbers: list[int], end: int | None) -> Page:
        return Page([finished(1)._replace(id=bytes([each])) for each in numbers], None if end is None else bytes([end]))

    assert merged([page(*each) for each in pages], 3) == page(expected, before)
