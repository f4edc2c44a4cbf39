"""Event log: tests of its Protocols, over every engine."""

import asyncio
import random
from collections import defaultdict

import pytest

from services.eventlog.errors import AnotherLogError, LogUnavailableError, PositionMismatchError
from services.eventlog.record import PARTITIONS, Conflict, EventQuery, Lag, Place, Record, ResumePoint
from services.runtime.consumer_scope import EVERYONE, OwnConsumer
from services.runtime.ids import is_id, new_id
from tests.conformance.conftest import Engine, OpenEngine
from tests.eventlog.logs import RETENTION_S, TIMEOUT_S, Reading, appended, everything, new_event, new_events

MIB = 1024 * 1024


async def test_a_record_is_the_event_as_it_was_appended(engine: Engine) -> None:
    event = new_event(1)._replace(type="order.paid", source="/ünï", audience="con_" + "0" * 32, event=bytes(range(256)))
    (receipt,) = await appended(engine.log, [event])
    async with engine.reader.follow(everything()) as following:
        (record,) = await Reading(following).take(1)
    assert record == Record(
        event.partition,
        receipt.position,
        receipt.event_id,
        "order.paid",
        "/ünï",
        event.audience,
        int(engine.clock.time_s * 1000),
        event.event,
    )
    assert is_id(record.event_id, "evt")
    assert not receipt.duplicate


async def test_positions_of_a_partition_grow_strictly_from_1(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(300)))
    receipts += await appended(engine.log, new_events(range(300, 600)))
    positions = defaultdict(list)
    for receipt in receipts:
        positions[receipt.partition].append(receipt.position)
    assert len(positions) == PARTITIONS
    for of_partition in positions.values():
        assert of_partition[0] >= 1
        assert of_partition == sorted(set(of_partition))
    assert len({receipt.event_id for receipt in receipts}) == 600


async def test_no_events_are_no_transaction(engine: Engine) -> None:
    assert await engine.log.append([]) == []


async def test_the_same_event_again_is_the_first_one(engine: Engine) -> None:
    """The repetition comes in a later append, or within one append."""
    (first,) = await appended(engine.log, [new_event(1)])
    again = await appended(engine.log, [new_event(2), new_event(1), new_event(2)])
    assert again[1] == first._replace(duplicate=True)
    assert not again[0].duplicate
    assert again[2] == again[0]._replace(duplicate=True)
    async with engine.reader.follow(everything()) as following:
        records = await Reading(following).take(2)
    assert sorted(record.event_id for record in records) == sorted([first.event_id, again[0].event_id])


async def test_another_event_of_the_same_source_and_id_is_a_conflict(engine: Engine) -> None:
    """The conflict names the first event, in a later append and within one, and the refused event leaves nothing behind."""
    (first,) = await appended(engine.log, [new_event(1)])
    results = await engine.log.append([new_event(1, content="other"), new_event(2), new_event(2, content="other"), new_event(3)])
    assert results[0] == Conflict(first.event_id)
    assert results[2] == Conflict(results[1].event_id)
    assert [type(result) for result in results] == [Conflict, type(first), Conflict, type(first)]
    async with engine.reader.follow(everything()) as following:
        records = await Reading(following).take(3)
    assert {record.event for record in records} == {new_event(number).event for number in (1, 2, 3)}


async def test_an_id_counts_within_its_source(engine: Engine) -> None:
    other = new_event(1, content="other")._replace(source="/warehouse")
    first, second = await appended(engine.log, [new_event(1), other])
    assert first.event_id != second.event_id


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
        waiting = asyncio.ensure_future(Reading(following).take(1))
        (receipt,) = await appended(engine.log, [new_event(1)])
        (record,) = await waiting
    assert record.event_id == receipt.event_id


async def test_a_follower_gets_only_the_partitions_it_asks_for(engine: Engine) -> None:
    await appended(engine.log, [new_event(number, partition=number % 4) for number in range(40)])
    async with engine.reader.follow([Place(1, 0), Place(3, 0)]) as following:
        reading = Reading(following)
        found = await reading.take(20)
        await appended(engine.log, [new_event(100 + number, partition=number % 4) for number in range(8)])
        found += await reading.take(4)
    assert set(following.heads) == {1, 3}
    assert [record.partition for record in found] == [1, 3] * 12


async def test_a_follower_goes_on_after_its_places(engine: Engine) -> None:
    """Each partition goes on after its own place, and the event at the place is not repeated."""
    receipts = await appended(engine.log, [new_event(number, partition=number % 2) for number in range(20)])
    places = [Place(*receipts[10][1:3], receipts[10].event_id), Place(*receipts[17][1:3])]
    async with engine.reader.follow(places) as following:
        found = await Reading(following).take(5)
    assert [record.event_id for record in found] == [receipts[number].event_id for number in (12, 14, 16, 18, 19)]


async def test_heads_are_where_the_partitions_end(engine: Engine) -> None:
    receipts = await appended(engine.log, [new_event(number, partition=number % 2) for number in range(5)])
    async with engine.reader.follow([Place(0, 0), Place(1, receipts[3].position), Place(2, 0)]) as following:
        assert following.heads == {0: receipts[4].position, 1: receipts[3].position, 2: 0}


async def test_the_log_keeps_its_identity_and_its_records(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        receipts = await appended(engine.log, new_events(range(5)))
        async with engine.reader.follow(everything()) as following:
            log_id = following.log_id
            found = await Reading(following).take(5)
    async with open_engine() as engine:
        async with engine.reader.follow(everything()) as following:
            assert following.log_id == log_id
            assert await Reading(following).take(5) == found
        again = await appended(engine.log, new_events(range(5)))
    assert again == [receipt._replace(duplicate=True) for receipt in receipts]
    assert len(log_id) == 32


@pytest.mark.parametrize(
    "wrong",
    [
        "another event",
        "an event of another partition",
        "no event there",
        "beyond the head",
        "another event right after it",
        "an event of another partition right after it",
        "no event right after it",
    ],
)
async def test_a_place_that_the_log_does_not_hold_is_refused_by_its_partition(engine: Engine, wrong: str) -> None:
    receipts = await appended(engine.log, [new_event(number, partition=number % 2) for number in range(6)])
    last, other = receipts[-1], receipts[-2]
    place = {
        "another event": Place(1, last.position, other.event_id),
        "an event of another partition": Place(1, other.position, other.event_id),
        "no event there": Place(1, last.position + 1, last.event_id),
        "beyond the head": Place(1, last.position + 1),
        "another event right after it": Place(1, last.position - 1, following_id=other.event_id),
        "an event of another partition right after it": Place(1, other.position - 1, following_id=other.event_id),
        "no event right after it": Place(1, last.position, following_id=last.event_id),
    }[wrong]
    with pytest.raises(PositionMismatchError) as caught:
        async with engine.reader.follow([Place(0, 0), place, Place(2, 0)]):
            pass
    assert caught.value.partitions == (1,)


async def test_a_reader_of_another_log_is_refused(engine: Engine) -> None:
    """Its places do not matter; a reader that names this log, or no log, is served."""
    with pytest.raises(AnotherLogError):
        async with engine.reader.follow(everything(1000), log_id="0" * 32):
            pass
    async with engine.reader.follow(everything()) as following:
        log_id = following.log_id
    async with engine.reader.follow(everything(), log_id=log_id) as following:
        assert following.log_id == log_id


async def test_partitions_that_do_not_fit_are_named_together(engine: Engine) -> None:
    """The error names as many partitions as an answer has room for."""
    await appended(engine.log, new_events(range(10)))
    places = [Place(partition, 0 if partition == 7 else 100 + partition) for partition in range(PARTITIONS)]
    with pytest.raises(PositionMismatchError) as caught:
        async with engine.reader.follow(places):
            pass
    wrong = [partition for partition in range(PARTITIONS) if partition != 7]
    assert list(caught.value.partitions) == wrong[: len(caught.value.partitions)]
    assert len(caught.value.partitions) >= 20


async def test_a_reader_that_has_handled_a_part_of_an_event_gets_that_event_again(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(3), partition=1))
    place = Place(1, receipts[1].position - 1, following_id=receipts[1].event_id)
    async with engine.reader.follow([place]) as following:
        found = await Reading(following).take(2)
    assert [record.event_id for record in found] == [receipt.event_id for receipt in receipts[1:]]


async def test_a_reader_of_a_part_that_stands_before_what_it_has_released_is_refused(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(3), partition=1))
    await engine.reader.release([Place(1, receipts[1].position)])
    with pytest.raises(PositionMismatchError):
        async with engine.reader.follow([Place(1, receipts[1].position - 1, following_id=receipts[1].event_id)]):
            pass


async def test_what_is_not_routed_is_what_follows_the_last_event_routed(engine: Engine) -> None:
    assert await engine.reader.report_routed(everything()) == Lag(0, None)
    first_ms = int(engine.clock.time_s * 1000)
    receipts = await appended(engine.log, [new_event(number, partition=number % 2) for number in range(4)])
    engine.clock.time_s += 60
    receipts += await appended(engine.log, [new_event(number, partition=number % 2) for number in range(4, 6)])
    routed = [Place(0, receipts[4].position, receipts[4].event_id), Place(1, receipts[1].position, receipts[1].event_id)]
    assert await engine.reader.report_routed(routed) == Lag(3, first_ms)
    routed[1] = Place(1, receipts[3].position, receipts[3].event_id)
    assert await engine.reader.report_routed(routed) == Lag(1, first_ms + 60_000)
    routed[1] = Place(1, receipts[5].position, receipts[5].event_id)
    assert await engine.reader.report_routed(routed) == Lag(0, None)


@pytest.mark.parametrize(("by_ms", "events"), [(10_000, 0), (-10_000, 3)])
async def test_what_is_not_routed_goes_by_the_age_of_an_event_that_the_log_does_not_hold(engine: Engine, by_ms: int, events: int) -> None:
    """The reader has routed another history, perhaps further: every event newer than its last event is not routed."""
    await appended(engine.log, new_events(range(3), partition=1))
    time_ms = int(engine.clock.time_s * 1000) + by_ms
    foreign = f"evt_{time_ms:012x}70008{0:015x}"
    for position in (2, 1000):
        assert (await engine.reader.report_routed([Place(1, position, foreign)])).events == events


async def test_a_reader_that_knows_the_log_may_not_stand_before_what_it_has_released(engine: Engine) -> None:
    """It may not even if it names no event; a reader that begins anew may, and so may one that has called `rewind`."""
    receipts = await appended(engine.log, new_events(range(3), partition=1))
    await engine.reader.release([Place(1, receipts[1].position)])
    async with engine.reader.follow([Place(1, 0)]) as following:
        log_id = following.log_id
    with pytest.raises(PositionMismatchError):
        async with engine.reader.follow([Place(1, 0)], log_id=log_id):
            pass
    await engine.reader.rewind([Place(1, 0), Place(2, 5)])
    async with engine.reader.follow([Place(1, 0)], log_id=log_id) as following:
        assert len(await Reading(following).take(3)) == 3


async def test_nothing_is_released_of_a_partition_that_stands_elsewhere(engine: Engine) -> None:
    """The worker's releases there belong to another log, or to another history of this log."""
    receipts = await appended(engine.log, [new_event(number, partition=number % 2) for number in range(4)])
    last = receipts[2:]
    recorded = [Place(0, last[0].position, last[0].event_id), Place(1, last[1].position, "evt_" + "f" * 32)]
    await engine.reader.release([Place(0, 100), Place(1, 100)], recorded)
    assert await engine.log.trim(before_ms=1 << 50) == 1
    recorded[1] = Place(1, last[1].position - 1, following_id=last[1].event_id)
    await engine.reader.release([Place(1, last[1].position - 1)], recorded)
    assert await engine.log.trim(before_ms=1 << 50) == 2


async def test_a_resume_point_is_found_by_the_id_of_the_last_event_handled(engine: Engine) -> None:
    """The event's position does not matter, in this log or in another."""
    receipts = await appended(engine.log, new_events(range(3), partition=1))
    engine.clock.time_s += 60
    receipts += await appended(engine.log, new_events(range(3, 5), partition=1))
    await engine.reader.release([Place(1, receipts[3].position)])
    between = f"evt_{int(engine.clock.time_s * 1000) - 30_000:012x}70008{0:015x}"
    asked = [Place(1, 77, receipts[1].event_id), Place(0, 77, receipts[4].event_id)]
    log_id, points = await engine.reader.resume_points(asked)
    assert points == [
        ResumePoint(Place(1, receipts[1].position, receipts[1].event_id), 3, 1),
        ResumePoint(Place(0, 0), 0, 0),
    ]
    async with engine.reader.follow(everything()) as following:
        assert following.log_id == log_id
    _, points = await engine.reader.resume_points([Place(1, 0, between)])
    assert points == [ResumePoint(Place(1, receipts[2].position, receipts[2].event_id), 2, 1)]
    _, points = await engine.reader.resume_points([Place(1, 0)])
    assert points == [ResumePoint(Place(1, 0), 5, 1)]


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
    """Places that are empty, or hold another partition's record, are left out."""
    receipts = await appended(engine.log, new_events(range(10)))
    places = [Place(receipt.partition, receipt.position) for receipt in receipts]
    wrong = [Place((places[0].partition + 1) % PARTITIONS, places[0].position), Place(0, 0), Place(5, 10_000)]
    asked = [places[7], wrong[0], places[2], wrong[1], places[9], places[2], wrong[2]]
    found = await engine.reader.fetch(asked)
    assert [record.event_id for record in found] == [receipts[number].event_id for number in (7, 2, 9, 2)]
    assert await engine.reader.fetch([]) == []
    assert await engine.reader.fetch(wrong) == []


async def test_fetch_takes_more_places_and_bytes_than_fit_into_one_message(engine: Engine) -> None:
    """Some of the places are repeated, and some are empty."""
    small = await appended(engine.log, new_events(range(2500)))
    large = await appended(engine.log, new_events(range(5000, 5008), size_bytes=MIB))
    places = [Place(receipt.partition, receipt.position) for receipt in small[:1200] + large + small[1200:] + large[:2]]
    places.insert(1203, Place(0, 0))
    found = await engine.reader.fetch(places)
    assert [record.position for record in found] == [place.position for place in places if place.position]


async def test_nothing_is_trimmed_that_is_not_released(engine: Engine) -> None:
    await appended(engine.log, new_events(range(10)))
    engine.clock.time_s += 2 * RETENTION_S
    assert await engine.log.trim(before_ms=int(engine.clock.time_s * 1000)) == 0
    await engine.reader.release(everything(0))
    assert await engine.log.trim(before_ms=int(engine.clock.time_s * 1000)) == 0
    async with engine.reader.follow(everything()) as following:
        await Reading(following).take(10)


async def test_nothing_is_trimmed_that_is_not_old(engine: Engine) -> None:
    await appended(engine.log, new_events(range(10)))
    engine.clock.time_s += 10
    between_ms = int(engine.clock.time_s * 1000)
    young = await appended(engine.log, new_events(range(10, 20)))
    await engine.reader.release(everything(young[-1].position))
    assert await engine.log.trim(before_ms=between_ms) == 10
    assert await engine.log.trim(before_ms=between_ms) == 0
    async with engine.reader.follow(everything()) as following:
        assert {record.event_id for record in await Reading(following).take(10)} == {receipt.event_id for receipt in young}


async def test_the_partition_that_needs_most_holds_the_others(engine: Engine) -> None:
    """Records after its first needed record stay too, and go when it is released."""
    receipts = await appended(engine.log, [new_event(number, partition=number % 2) for number in range(10)])
    end_ms = int(engine.clock.time_s * 1000) + 1
    await engine.reader.release([Place(0, receipts[-1].position), Place(1, receipts[3].position)])
    assert await engine.log.trim(before_ms=end_ms) == 5
    assert [record.position for record in await engine.reader.fetch([Place(r.partition, r.position) for r in receipts])] == [
        receipt.position for receipt in receipts[5:]
    ]
    await engine.reader.release([Place(1, receipts[-1].position)])
    assert await engine.log.trim(before_ms=end_ms) == 5


async def test_a_release_is_never_taken_back(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(10), partition=0))
    await engine.reader.release([Place(0, receipts[5].position)])
    await engine.reader.release([Place(0, receipts[2].position)])
    assert await engine.log.trim(before_ms=int(engine.clock.time_s * 1000) + 1) == 6


async def test_what_is_not_appended_yet_cannot_be_released(engine: Engine) -> None:
    """A reader whose own store is newer than the log must not cost anyone the later events."""
    await appended(engine.log, new_events(range(3), partition=0))
    await engine.reader.release([Place(0, 1_000_000)])
    later = await appended(engine.log, new_events(range(3, 6), partition=0))
    assert await engine.log.trim(before_ms=int(engine.clock.time_s * 1000) + 1) == 3
    assert len(await engine.reader.fetch([Place(0, receipt.position) for receipt in later])) == 3


async def test_a_release_is_answered_with_what_is_past_its_retention(engine: Engine) -> None:
    old = await appended(engine.log, new_events(range(5)))
    assert await engine.reader.release([Place(0, 0), Place(1, 0)]) == [Place(0, 0), Place(1, 0)]
    engine.clock.time_s += RETENTION_S + 1
    await appended(engine.log, new_events(range(5, 8)))
    assert await engine.reader.release([Place(0, 0), Place(1, 0)]) == [Place(0, old[-1].position), Place(1, old[-1].position)]


async def test_positions_and_places_outlive_trimming(open_engine: OpenEngine) -> None:
    """When everything is trimmed and the log is opened again, positions go on, and a trimmed place is still valid."""
    async with open_engine() as engine:
        receipts = await appended(engine.log, new_events(range(10), partition=0))
        last = receipts[-1]
        await engine.reader.release(everything(last.position))
        assert await engine.log.trim(before_ms=int(engine.clock.time_s * 1000) + 1) == 10
        assert await engine.reader.fetch([Place(0, last.position)]) == []
    async with open_engine() as engine, engine.reader.follow([Place(0, last.position, last.event_id)]) as following:
        assert following.log_id
        (new,) = await appended(engine.log, [new_event(50, partition=0)])
        assert new.position > last.position
        assert (await Reading(following).take(1))[0].event_id == new.event_id


async def test_a_follower_that_begins_anew_behind_what_was_trimmed_gets_what_is_left(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(10), partition=0))
    await engine.reader.release([Place(0, receipts[6].position)])
    await engine.log.trim(before_ms=int(engine.clock.time_s * 1000) + 1)
    async with engine.reader.follow([Place(0, receipts[1].position)]) as following:
        assert [record.event_id for record in await Reading(following).take(3)] == [receipt.event_id for receipt in receipts[7:]]


async def test_an_event_may_come_again_once_the_first_is_trimmed(engine: Engine) -> None:
    (first,) = await appended(engine.log, [new_event(1, partition=0)])
    await engine.reader.release([Place(0, first.position)])
    assert await engine.log.trim(before_ms=int(engine.clock.time_s * 1000) + 1) == 1
    (second,) = await appended(engine.log, [new_event(1, partition=0)])
    assert not second.duplicate
    assert second.event_id > first.event_id


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


async def test_an_event_is_found_by_its_id(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(50)))
    for receipt in receipts[::7]:
        record = await engine.log.locate(EVERYONE, receipt.event_id)
        assert record is not None
        assert (record.event_id, record.partition, record.position) == (receipt.event_id, receipt.partition, receipt.position)
    assert await engine.log.locate(EVERYONE, "evt_" + "0" * 32) is None
    assert await engine.log.locate(EVERYONE, "evt_" + "f" * 32) is None


async def test_a_scope_sees_the_events_for_all_and_those_for_its_own_consumer(engine: Engine) -> None:
    own, other = OwnConsumer(new_id("con")), OwnConsumer(new_id("con"))
    audiences = ("", own.consumer_id, other.consumer_id)
    receipts = await appended(engine.log, [new_event(number)._replace(audience=audience) for number, audience in enumerate(audiences)])
    for scope, expected in ((EVERYONE, audiences), (own, audiences[:2]), (other, audiences[::2])):
        located = [await engine.log.locate(scope, receipt.event_id) for receipt in receipts]
        assert [record.audience for record in located if record is not None] == list(expected)
        listed = await engine.log.newest(EventQuery(None, 10, scope, "", "", None, None))
        assert [record.audience for record in reversed(listed.records)] == list(expected)
