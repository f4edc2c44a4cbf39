"""Follow and fetch: what an event log promises to those who read."""

import asyncio
import random
from collections import defaultdict

import pytest

from services.eventlog.errors import LogUnavailableError
from services.eventlog.record import Record, ShardPosition
from tests.conformance.event_log.conftest import Engine
from tests.support.event_logs import RETENTION_S, TIMEOUT_S, Reading, appended, everything, new_event, new_events

MIB = 1024 * 1024


async def test_a_follower_gets_what_is_there_and_then_what_comes(engine: Engine) -> None:
    before = await appended(engine.log, new_events(range(10)))
    async with engine.reader.follow(everything()) as following:
        reading = Reading(following)
        found = await reading.take(10)
        during = []
        for number in range(10, 20):
            during += await appended(engine.log, [new_event(number)])
            found += await reading.take(1)
    assert [(record.partition, record.position, record.event_id) for record in found] == sorted(
        ((receipt.partition, receipt.position, receipt.event_id) for receipt in before + during), key=lambda place: place[1]
    )


async def test_a_follower_waits_for_the_first_event_of_all(engine: Engine) -> None:
    async with engine.reader.follow(everything()) as following:
        assert set(following.heads.values()) == {0}
        assert following.retention_s == RETENTION_S
        waiting = asyncio.ensure_future(Reading(following).take(1))
        (receipt,) = await appended(engine.log, [new_event(1)])
        (record,) = await waiting
    assert record.event_id == receipt.event_id


async def test_a_follower_goes_on_after_its_place(engine: Engine) -> None:
    """All partitions go on after one place, and the event at the place is not repeated."""
    receipts = await appended(engine.log, [new_event(number, partition=number % 4) for number in range(20)])
    async with engine.reader.follow([ShardPosition(0, receipts[14].position, receipts[14].event_id)]) as following:
        found = await Reading(following).take(5)
    assert [record.event_id for record in found] == [receipt.event_id for receipt in receipts[15:]]
    assert [(record.shard, record.partition) for record in found] == [(0, 3), (0, 0), (0, 1), (0, 2), (0, 3)]


async def test_heads_separate_what_is_there_from_what_comes(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(5)))
    async with engine.reader.follow([ShardPosition(0, receipts[3].position)]) as following:
        heads = dict(following.heads)
        later = await appended(engine.log, new_events(range(5, 8)))
    assert set(heads) == {0}
    assert all(receipt.position <= heads[0] for receipt in receipts)
    assert all(receipt.position > heads[0] for receipt in later)


async def test_batches_are_bounded_in_records(engine: Engine) -> None:
    await appended(engine.log, new_events(range(100)))
    async with engine.reader.follow(everything(), batch_records_max=7) as following:
        reading = Reading(following)
        await reading.take(100)
    assert max(reading.batch_sizes) == 7


async def test_batches_are_bounded_in_bytes(engine: Engine) -> None:
    """The bound holds for batches from memory and from the file: this log is larger than what stays in memory."""
    await appended(engine.log, new_events(range(20), size_bytes=MIB))
    async with engine.reader.follow(everything()) as following:
        reading = Reading(following)
        found = await reading.take(20)
    assert [int(record.event.split(b":")[0]) for record in found] == list(range(20))
    assert max(reading.batch_sizes) == 3


async def test_followers_far_behind_and_close_by_all_see_everything_once(engine: Engine) -> None:
    """Many callers append at once, in memory and beyond it, and each partition arrives in order."""
    rng = random.Random(7)
    total, appends = 12_000, 60

    async def follow(late: asyncio.Event, batch: int) -> list[Record]:
        await late.wait()
        async with engine.reader.follow(everything(), batch_records_max=batch) as following:
            return await Reading(following).take(total)

    async def append(numbers: range) -> None:
        for start in range(numbers.start, numbers.stop, 20):
            await appended(engine.log, new_events(range(start, start + 20)))

    starts = [asyncio.Event() for _ in range(3)]
    followers = [asyncio.ensure_future(follow(start, rng.choice([33, 500, 2000]))) for start in starts]
    starts[0].set()
    share = total // appends
    emitters = [asyncio.ensure_future(append(range(number * share, (number + 1) * share))) for number in range(appends)]
    await emitters[0]
    starts[1].set()
    await asyncio.gather(*emitters)
    starts[2].set()
    async with asyncio.timeout(TIMEOUT_S):
        seen = await asyncio.gather(*followers)
    assert seen[0] == seen[1] == seen[2]
    assert len({record.event_id for record in seen[0]}) == total
    newest: dict[int, int] = defaultdict(int)
    for record in seen[0]:
        assert record.position > newest[record.partition]
        newest[record.partition] = record.position


async def test_fetch_returns_records_in_the_order_asked(engine: Engine) -> None:
    """Positions that are empty or in a shard that the log does not have are left out."""
    receipts = await appended(engine.log, new_events(range(10)))
    places = [ShardPosition(0, receipt.position) for receipt in receipts]
    wrong = [ShardPosition(1, places[0].position), ShardPosition(0, 0), ShardPosition(0, 10_000)]
    asked = [places[7], wrong[0], places[2], wrong[1], places[9], places[2], wrong[2]]
    found = await engine.reader.fetch(asked)
    assert [record.event_id for record in found] == [receipts[number].event_id for number in (7, 2, 9, 2)]
    assert await engine.reader.fetch([]) == []
    assert await engine.reader.fetch(wrong) == []


async def test_fetch_takes_more_places_and_bytes_than_fit_into_one_message(engine: Engine) -> None:
    """Some of the places are repeated, and some are empty."""
    small = await appended(engine.log, new_events(range(2500)))
    large = await appended(engine.log, new_events(range(5000, 5008), size_bytes=MIB))
    places = [ShardPosition(0, receipt.position) for receipt in small[:1200] + large + small[1200:] + large[:2]]
    places.insert(1203, ShardPosition(0, 0))
    found = await engine.reader.fetch(places)
    assert [record.position for record in found] == [place.position for place in places if place.position]


async def test_a_log_that_closes_ends_its_followings(engine: Engine) -> None:
    """Waiting readers get the error after which a reader follows again, at once."""
    await appended(engine.log, [new_event(1)])
    async with engine.reader.follow(everything()) as following:
        reading = Reading(following)
        await reading.take(1)
        waiting = asyncio.ensure_future(reading.batch())
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await engine.lose()
            with pytest.raises(LogUnavailableError):
                await waiting


async def test_an_abandoned_following_leaves_the_log_to_the_others(engine: Engine) -> None:
    async with engine.reader.follow(everything()) as kept:
        for _ in range(20):
            async with engine.reader.follow(everything()) as following:
                assert following.heads
        await appended(engine.log, [new_event(1)])
        assert len(await Reading(kept).take(1)) == 1
