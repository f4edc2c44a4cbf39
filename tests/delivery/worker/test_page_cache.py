"""Page cache: against a log in memory that counts its reads."""

import asyncio
import random
from dataclasses import replace

import pytest

from services.delivery.model import State
from services.delivery.worker.page_cache import PageCache
from services.eventlog.errors import LogUnavailableError
from services.eventlog.filtered_read import ReadPage, ReadQuery
from services.eventlog.record import NewEvent, Record, ShardPosition
from tests.delivery.conftest import Play
from tests.simulation.event_log import MemoryEventLog
from tests.simulation.registry import PAUSED
from tests.simulation.scenarios import ALPHA, deliveries, finished, started
from tests.simulation.world import World

BEGINNING = [ShardPosition(0, 0)]
TYPES = ("a", "b", "hooktide.c")


class CountedLog(MemoryEventLog):
    """A log that counts its reads."""

    def __init__(self) -> None:
        super().__init__(lambda: asyncio.sleep(0))
        self.reads = 0

    async def read(self, query: ReadQuery) -> ReadPage:
        """See `EventReader.read`."""
        self.reads += 1
        return await super().read(query)


def filled(count: int, *, size_bytes: int = 100) -> CountedLog:
    log = CountedLog()
    for number in range(count):
        event = NewEvent(number % 256, "/shop", str(number), TYPES[number % 3], "", b"", b"x" * size_bytes)
        log.append(event, accepted_ms=number)
    return log


async def read_all(cache: PageCache, query: ReadQuery, end: int) -> list[Record]:
    """Read the pages of a range until one reaches `end`."""
    found, at = list[Record](), query.after[0].position
    while at < end:
        page = await cache.read(query._replace(after=[ShardPosition(0, at)]))
        assert at < page.scanned_through[0].position <= end
        assert len(page.records) <= query.records_max
        at = page.scanned_through[0].position
        found += page.records
    return found


@pytest.mark.parametrize("seed", range(5))
async def test_readers_at_any_places_with_any_bounds_get_what_the_log_holds(seed: int) -> None:
    """Whatever is cached or was let go."""
    chance = random.Random(seed)
    log = filled(900)
    cache = PageCache(log, bytes_max=chance.choice([2_000, 200_000, 1 << 30]))
    for _ in range(40):
        after, through = sorted(chance.choices(range(901), k=2))
        types = chance.choice([(), ("a",), ("b", "hooktide.*"), ("*",)])
        query = ReadQuery(
            [ShardPosition(0, after)], [ShardPosition(0, through)], types, records_max=chance.choice([1, 7, 200]), bytes_max=1 << 20
        )
        found = await read_all(cache, query, through)
        assert found == (await MemoryEventLog.read(log, query._replace(records_max=1 << 30))).records


async def test_a_page_serves_all_readers_within_it_however_few_records_they_take() -> None:
    log = filled(150)
    cache = PageCache(log)
    for reader in range(20):
        found = await read_all(cache, ReadQuery([ShardPosition(0, reader)], types=["a", "b"], records_max=5), 150)
        assert len(found) == len([number for number in range(reader, 150) if number % 3 < 2])
    assert log.reads == 1
    await cache.read(ReadQuery(BEGINNING, types=["a"]))
    assert log.reads == 2


async def test_readers_that_want_the_same_page_at_once_read_it_once() -> None:
    log = filled(100)
    cache = PageCache(log)
    pages = await asyncio.gather(*(cache.read(ReadQuery(BEGINNING)) for _ in range(10)))
    assert {len(page.records) for page in pages} == {67}
    assert log.reads == 1


async def test_a_failed_read_fails_alone_and_the_next_reader_tries_again() -> None:
    log = filled(10)
    cache = PageCache(log)
    log.set_reachable(reachable=False)
    for _ in range(2):
        outcomes = await asyncio.gather(*(cache.read(ReadQuery(BEGINNING)) for _ in range(2)), return_exceptions=True)
        assert all(isinstance(outcome, LogUnavailableError) for outcome in outcomes)
    log.set_reachable(reachable=True)
    assert len((await cache.read(ReadQuery(BEGINNING))).records) == 7


async def test_the_page_used_longest_ago_goes_first() -> None:
    """The bytes kept stay within the bound."""
    log = filled(2_000, size_bytes=1000)
    cache = PageCache(log, bytes_max=700_000)
    await cache.read(ReadQuery(BEGINNING))
    for place in (300, 600, 900):
        await cache.read(ReadQuery([ShardPosition(0, place)]))
        assert cache.size_bytes <= 700_000
        await cache.read(ReadQuery([ShardPosition(0, 1)]))
    assert log.reads == 4  # the first page was never let go
    await cache.read(ReadQuery([ShardPosition(0, 300)]))
    assert log.reads == 5


async def test_growth_of_the_log_is_seen_and_its_end_is_not_kept() -> None:
    log = filled(6)
    cache = PageCache(log)
    assert len(await read_all(cache, ReadQuery(BEGINNING), 6)) == 4
    at_the_end = ReadQuery([ShardPosition(0, 6)])
    assert (await cache.read(at_the_end)).records == []
    log.append(NewEvent(0, "/shop", "new", "a", "", b"", b"x"), accepted_ms=7)
    assert [record.position for record in (await cache.read(at_the_end)).records] == [7]


async def test_cleared_pages_are_read_anew_and_a_read_under_way_is_not_kept() -> None:
    log = filled(10)
    cache = PageCache(log)
    await cache.read(ReadQuery(BEGINNING))
    cache.clear()
    reading = asyncio.ensure_future(cache.read(ReadQuery(BEGINNING)))
    await asyncio.sleep(0)
    cache.clear()
    assert len((await reading).records) == 7
    assert cache.size_bytes == 0
    await cache.read(ReadQuery(BEGINNING))
    assert log.reads == 3


def test_lanes_that_are_behind_with_the_same_filter_share_the_reads_of_the_log(play: Play) -> None:
    """Twenty lanes catch up with fewer reads than two of them would need alone."""
    wishes = [replace(ALPHA, id=f"sub_{number:032x}", state=PAUSED) for number in range(20)]

    async def scenario(world: World) -> None:
        await started(world, *wishes)
        records = world.publish(100, "alpha")
        await asyncio.sleep(5.0)
        assert len(world.store.ranges()) == 20
        read, queries = world.log.read, list[ReadQuery]()

        async def counted(query: ReadQuery) -> ReadPage:
            queries.append(query)
            return await read(query)

        world.log.read = counted  # type: ignore[method-assign]  # counts the reads of the log
        for wish in wishes:
            world.activate(wish.id)
        await finished(world)
        for wish in wishes:
            assert deliveries(world, records, wish) == [State.DELIVERED] * 100
        # The simulation's pages have two records.
        assert len(queries) <= 100

    play(scenario)
