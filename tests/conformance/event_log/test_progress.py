"""Progress: what a reader releases, and what the log may then trim; what a reader has routed."""

import pytest

from services.eventlog.errors import PositionMismatchError
from services.eventlog.record import Lag, ShardPosition, SlotProgress
from tests.conformance.event_log.conftest import Engine, OpenEngine
from tests.support.event_logs import RETENTION_S, Reading, appended, everything, new_event, new_events, released


async def test_a_reader_of_a_part_that_stands_before_what_it_has_released_is_refused(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(3)))
    await engine.reader.release(released(receipts[1].position))
    with pytest.raises(PositionMismatchError):
        async with engine.reader.follow([ShardPosition(0, receipts[1].position - 1, following_id=receipts[1].event_id)]):
            pass


async def test_a_reader_may_stand_before_what_other_slots_have_released(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(3)))
    await engine.reader.release(released(receipts[0].position, slots=[0, 1]) + released(receipts[2].position, slots=[2]))
    place = [ShardPosition(0, receipts[1].position, receipts[1].event_id)]
    async with engine.reader.follow(place, slots=[0, 1]) as following:
        assert [record.event_id for record in await Reading(following).take(1)] == [receipts[2].event_id]
    for slots in ([1, 2], [2], []):
        with pytest.raises(PositionMismatchError):
            async with engine.reader.follow(place, slots=slots):
                pass


async def test_what_is_not_routed_is_what_follows_the_last_event_routed(engine: Engine) -> None:
    """The slots that are furthest behind count; a slot that has not reported counts as far as it has released."""
    assert await engine.reader.report_routed(everything()) == Lag(0, None)
    first_ms = int(engine.clock.time_s * 1000)
    receipts = await appended(engine.log, [new_event(number) for number in range(4)])
    engine.clock.time_s += 60
    receipts += await appended(engine.log, [new_event(number) for number in range(4, 6)])
    places = [[ShardPosition(0, receipt.position, receipt.event_id)] for receipt in receipts]
    assert await engine.reader.report_routed(places[1]) == Lag(4, first_ms)
    assert await engine.reader.report_routed(places[5], range(100)) == Lag(4, first_ms)
    assert await engine.reader.report_routed(places[3], range(100, 256)) == Lag(2, first_ms + 60_000)
    assert await engine.reader.report_routed(places[5]) == Lag(0, None)


async def test_before_every_slot_has_reported_what_is_not_released_counts(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(3)))
    await engine.reader.release(released(receipts[0].position))
    last = [ShardPosition(0, receipts[2].position, receipts[2].event_id)]
    assert (await engine.reader.report_routed(last, range(255))).events == 2
    assert (await engine.reader.report_routed(last, [255])).events == 0


@pytest.mark.parametrize(("by_ms", "events"), [(10_000, 0), (-10_000, 3)])
async def test_what_is_not_routed_goes_by_the_age_of_an_event_that_the_log_does_not_hold(engine: Engine, by_ms: int, events: int) -> None:
    """The reader has routed another history, perhaps further: every event newer than its last event is not routed."""
    await appended(engine.log, new_events(range(3), partition=1))
    time_ms = int(engine.clock.time_s * 1000) + by_ms
    foreign = f"evt_{time_ms:012x}70008{0:015x}"
    for position in (2, 1000):
        assert (await engine.reader.report_routed([ShardPosition(0, position, foreign)])).events == events


async def test_a_reader_that_knows_the_log_may_not_stand_before_what_it_has_released(engine: Engine) -> None:
    """It may not even if it names no event; a reader that begins anew may, and so may one that has called `rewind`."""
    receipts = await appended(engine.log, new_events(range(3)))
    await engine.reader.release(released(receipts[1].position))
    async with engine.reader.follow(everything()) as following:
        log_id = following.log_id
    with pytest.raises(PositionMismatchError):
        async with engine.reader.follow(everything(), log_id=log_id):
            pass
    await engine.reader.rewind([SlotProgress(range(255), everything(), everything())])
    with pytest.raises(PositionMismatchError):
        async with engine.reader.follow(everything(), log_id=log_id):
            pass
    await engine.reader.rewind([SlotProgress([255], everything(), everything())])
    async with engine.reader.follow(everything(), log_id=log_id) as following:
        assert len(await Reading(following).take(3)) == 3


@pytest.mark.parametrize("recorded", ["another event", "another event right after it", "beyond the head"])
async def test_nothing_is_released_by_a_reader_that_stands_elsewhere(engine: Engine, recorded: str) -> None:
    """Its positions belong to another log, or to another history of this log; the slots of other readers are released."""
    receipts = await appended(engine.log, new_events(range(4)))
    last, foreign = receipts[-1], "evt_" + "f" * 32
    place = {
        "another event": ShardPosition(0, last.position, foreign),
        "another event right after it": ShardPosition(0, last.position - 1, following_id=foreign),
        "beyond the head": ShardPosition(0, last.position + 1),
    }[recorded]
    fits = ShardPosition(0, last.position, last.event_id)
    await engine.reader.release([*released(3, fits, range(255)), *released(3, place, [255])])
    await engine.trim(exactly=0)
    assert len(await engine.reader.fetch([ShardPosition(0, receipt.position) for receipt in receipts])) == 4
    await engine.reader.release(released(receipts[1].position, ShardPosition(0, last.position - 1, following_id=last.event_id), [255]))
    await engine.trim(exactly=2)


async def test_nothing_is_released_by_a_reader_whose_store_is_an_older_copy(engine: Engine) -> None:
    """It has recorded less than the log knows: whatever it releases, what the newer store had needed stays."""
    receipts = await appended(engine.log, new_events(range(6)))
    places = [ShardPosition(0, receipt.position, receipt.event_id) for receipt in receipts]
    await engine.reader.release(released(receipts[1].position, places[5]))
    await engine.reader.release(released(receipts[4].position, places[4]))
    await engine.trim(exactly=2)
    place = [places[4]]
    await engine.reader.rewind([SlotProgress((), place, place)])
    await engine.reader.release(released(receipts[4].position, places[4]))
    await engine.trim(exactly=3)


async def test_a_slot_that_was_never_reported_has_released_nothing(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(4)))
    await engine.reader.release(released(receipts[-1].position, slots=[slot for slot in range(256) if slot != 100]))
    await engine.trim(exactly=0)
    await engine.reader.release(released(receipts[1].position, slots=[100]))
    await engine.trim(exactly=2)


async def test_nothing_is_trimmed_that_is_not_released(engine: Engine) -> None:
    await appended(engine.log, new_events(range(10)))
    engine.clock.time_s += 2 * RETENTION_S
    assert await engine.log.trim(before_ms=int(engine.clock.time_s * 1000)) == 0
    await engine.reader.release(released(0))
    assert await engine.log.trim(before_ms=int(engine.clock.time_s * 1000)) == 0
    async with engine.reader.follow(everything()) as following:
        await Reading(following).take(10)


async def test_nothing_is_trimmed_that_is_not_old(engine: Engine) -> None:
    await appended(engine.log, new_events(range(10)))
    engine.clock.time_s += 10
    between_ms = int(engine.clock.time_s * 1000)
    young = await appended(engine.log, new_events(range(10, 20)))
    await engine.reader.release(released(young[-1].position))
    await engine.trim(before_ms=between_ms, exactly=10)
    await engine.trim(before_ms=between_ms, exactly=0)
    async with engine.reader.follow(everything()) as following:
        assert {record.event_id for record in await Reading(following).take(10)} == {receipt.event_id for receipt in young}


async def test_a_release_is_never_taken_back(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(10), partition=0))
    await engine.reader.release(released(receipts[5].position))
    await engine.reader.release(released(receipts[2].position))
    await engine.trim(exactly=6)


async def test_what_is_not_appended_yet_cannot_be_released(engine: Engine) -> None:
    """A reader whose own store is newer than the log must not cost anyone the later events."""
    await appended(engine.log, new_events(range(3), partition=0))
    await engine.reader.release(released(1_000_000))
    later = await appended(engine.log, new_events(range(3, 6), partition=0))
    await engine.trim(exactly=0)
    assert len(await engine.reader.fetch([ShardPosition(0, receipt.position) for receipt in later])) == 3


async def test_a_release_is_answered_with_what_is_past_its_retention(engine: Engine) -> None:
    old = await appended(engine.log, new_events(range(5)))
    assert await engine.reader.release(released(0)) == everything()
    engine.clock.time_s += RETENTION_S + 1
    await appended(engine.log, new_events(range(5, 8)))
    assert await engine.reader.release(released(0)) == everything(old[-1].position)


async def test_positions_and_places_outlive_trimming(open_engine: OpenEngine) -> None:
    """When everything is trimmed and the log is opened again, positions go on, and a trimmed place is still valid."""
    async with open_engine() as engine:
        receipts = await appended(engine.log, new_events(range(10), partition=0))
        last = receipts[-1]
        await engine.reader.release(released(last.position))
        await engine.trim(exactly=10)
        assert await engine.reader.fetch([ShardPosition(0, last.position)]) == []
    async with open_engine() as engine, engine.reader.follow([ShardPosition(0, last.position, last.event_id)]) as following:
        assert following.log_id
        (new,) = await appended(engine.log, [new_event(50, partition=0)])
        assert new.position > last.position
        assert (await Reading(following).take(1))[0].event_id == new.event_id


async def test_a_follower_that_begins_anew_behind_what_was_trimmed_gets_what_is_left(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(10), partition=0))
    await engine.reader.release(released(receipts[6].position))
    await engine.trim(exactly=7)
    async with engine.reader.follow([ShardPosition(0, receipts[1].position)]) as following:
        assert [record.event_id for record in await Reading(following).take(3)] == [receipt.event_id for receipt in receipts[7:]]


async def test_what_one_slot_needs_stays_when_others_are_released(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(10)))
    await engine.reader.release(released(receipts[-1].position, slots=range(255)) + released(receipts[4].position, slots=[255]))
    await engine.trim(exactly=5)
    needed = [ShardPosition(0, receipt.position) for receipt in receipts[5:]]
    assert [record.position for record in await engine.reader.fetch(needed)] == [place.position for place in needed]
