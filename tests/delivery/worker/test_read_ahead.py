import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from services.delivery.worker.read_ahead import BYTES_MAX, RECORDS_MAX, read_ahead
from services.eventlog.errors import LogUnavailableError
from services.eventlog.record import Record


def record(position: int, size_bytes: int = 10) -> Record:
    return Record(0, 0, position, f"evt_{position:032x}", "type", "/source", "", 0, b"x" * size_bytes)


class Log:
    """Gives out batches one by one; counts how many were taken."""

    def __init__(self, size: int, size_bytes: int = 10) -> None:
        self.taken = 0
        self.more = asyncio.Event()
        self.end: Exception | None = None
        self._size = size
        self._size_bytes = size_bytes

    async def batches(self, count: int) -> AsyncIterator[Sequence[Record]]:
        """Yield batches, then wait until `more` is set, and end."""
        for number in range(count):
            self.taken += 1
            await asyncio.sleep(0)
            yield [record(number * self._size + each, self._size_bytes) for each in range(self._size)]
        await self.more.wait()
        if self.end is not None:
            raise self.end


async def settled() -> None:
    """Let every ready task run."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_what_has_come_meanwhile_comes_together_and_in_order() -> None:
    log = Log(3)
    async with contextlib.aclosing(read_ahead(log.batches(20))) as ahead:
        first = await anext(ahead)
        assert len(first) < 60
        await settled()
        assert [each.position for each in [*first, *await anext(ahead)]] == list(range(60))


@pytest.mark.parametrize(("size", "size_bytes", "most"), [(100, 10, RECORDS_MAX // 100), (1, 1024 * 1024, BYTES_MAX // 1024 // 1024)])
async def test_while_enough_waits_nothing_is_read(size: int, size_bytes: int, most: int) -> None:
    log = Log(size, size_bytes)
    async with contextlib.aclosing(read_ahead(log.batches(50))) as ahead:
        got = 0
        while got < 50 * size:
            got += len(await anext(ahead))
            await settled()
            assert log.taken <= got // size + most
    assert log.taken == 50


async def test_what_came_before_the_end_is_routed_before_it_is_heard_of() -> None:
    log = Log(1)
    log.end = LogUnavailableError("away")
    log.more.set()
    got = list[Record]()

    async def route() -> None:
        async with contextlib.aclosing(read_ahead(log.batches(7))) as ahead:
            async for records in ahead:
                got.extend(records)
                await settled()

    with pytest.raises(LogUnavailableError):
        await route()
    assert len(got) == 7


async def test_a_reader_that_leaves_ends_the_reading() -> None:
    log = Log(1)
    async with contextlib.aclosing(read_ahead(log.batches(1))) as ahead:
        await anext(ahead)
        assert [task for task in asyncio.all_tasks() if "read_ahead" in repr(task.get_coro())]
    await settled()
    assert not [task for task in asyncio.all_tasks() if "read_ahead" in repr(task.get_coro())]
    log.more.set()
    await settled()
    assert log.taken == 1
