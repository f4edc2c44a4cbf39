"""Resume: how a log and its reader find out whether the reader may go on from its places."""

import pytest

from services.eventlog.errors import AnotherLogError, PositionMismatchError
from services.eventlog.record import ResumePoint, ShardPosition
from tests.conformance.event_log.conftest import Engine, OpenEngine
from tests.support.event_logs import Reading, appended, everything, new_events, released


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
    ["another event", "no event there", "beyond the head", "another event right after it", "no event right after it"],
)
async def test_a_place_that_the_log_does_not_hold_is_refused_by_its_shard(engine: Engine, wrong: str) -> None:
    receipts = await appended(engine.log, new_events(range(6)))
    last, other = receipts[-1], receipts[-2]
    place = {
        "another event": ShardPosition(0, last.position, other.event_id),
        "no event there": ShardPosition(0, last.position + 1, last.event_id),
        "beyond the head": ShardPosition(0, last.position + 1),
        "another event right after it": ShardPosition(0, last.position - 1, following_id=other.event_id),
        "no event right after it": ShardPosition(0, last.position, following_id=last.event_id),
    }[wrong]
    with pytest.raises(PositionMismatchError) as caught:
        async with engine.reader.follow([place]):
            pass
    assert caught.value.shards == (0,)


async def test_a_reader_of_another_log_is_refused(engine: Engine) -> None:
    """Its places do not matter; a reader that names this log, or no log, is served."""
    with pytest.raises(AnotherLogError):
        async with engine.reader.follow(everything(1000), log_id="0" * 32):
            pass
    async with engine.reader.follow(everything()) as following:
        log_id = following.log_id
    async with engine.reader.follow(everything(), log_id=log_id) as following:
        assert following.log_id == log_id


async def test_a_reader_that_has_handled_a_part_of_an_event_gets_that_event_again(engine: Engine) -> None:
    receipts = await appended(engine.log, new_events(range(3), partition=1))
    place = ShardPosition(0, receipts[1].position - 1, following_id=receipts[1].event_id)
    async with engine.reader.follow([place]) as following:
        found = await Reading(following).take(2)
    assert [record.event_id for record in found] == [receipt.event_id for receipt in receipts[1:]]


async def test_a_resume_point_is_found_by_the_id_of_the_last_event_handled(engine: Engine) -> None:
    """The event's position does not matter, in this log or in another."""
    receipts = await appended(engine.log, new_events(range(3), partition=1))
    engine.clock.time_s += 60
    receipts += await appended(engine.log, new_events(range(3, 5), partition=1))
    await engine.reader.release(released(receipts[3].position, slots=[1, 2]))
    between = f"evt_{int(engine.clock.time_s * 1000) - 30_000:012x}70008{0:015x}"
    log_id, points = await engine.reader.resume_points([ShardPosition(0, 77, receipts[1].event_id)])
    assert points == [ResumePoint(ShardPosition(0, receipts[1].position, receipts[1].event_id), 3, 3)]
    async with engine.reader.follow(everything()) as following:
        assert following.log_id == log_id
    _, points = await engine.reader.resume_points([ShardPosition(0, 0, between)], [2, 1])
    assert points == [ResumePoint(ShardPosition(0, receipts[2].position, receipts[2].event_id), 2, 1)]
    _, points = await engine.reader.resume_points([ShardPosition(0, 0)], [1])
    assert points == [ResumePoint(ShardPosition(0, 0), 5, 1)]
