"""Append: what an event log promises to those who append."""

import asyncio
from collections import defaultdict

from services.eventlog.record import PARTITIONS, Conflict, Record
from services.runtime.ids import is_id
from tests.conformance.event_log.conftest import Engine
from tests.support.event_logs import Reading, appended, everything, new_event, new_events


async def test_a_record_is_the_event_as_it_was_appended(engine: Engine) -> None:
    event = new_event(1)._replace(type="order.paid", source="/ünï", audience="con_" + "0" * 32, event=bytes(range(256)))
    (receipt,) = await appended(engine.log, [event])
    async with engine.reader.follow(everything()) as following:
        (record,) = await Reading(following).take(1)
    assert record == Record(
        0,
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


async def test_events_of_one_partition_keep_the_order_of_their_calls(engine: Engine) -> None:
    """Many callers append at once, each after the one before has begun."""
    calls = [asyncio.ensure_future(engine.log.append(new_events(range(start, start + 3), partition=1))) for start in range(0, 300, 3)]
    await asyncio.gather(*calls)
    async with engine.reader.follow(everything()) as following:
        found = await Reading(following).take(300)
    assert [int(record.event.split(b":")[0]) for record in found] == list(range(300))


async def test_an_id_counts_within_its_source(engine: Engine) -> None:
    other = new_event(1, content="other")._replace(source="/warehouse")
    first, second = await appended(engine.log, [new_event(1), other])
    assert first.event_id != second.event_id
