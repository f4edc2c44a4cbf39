"""Ledger, over every engine: how far events are recorded, and copies of events that the log is about to drop."""

import random

from services.delivery.ledger.protocol import Flush, Ledger
from services.eventlog.record import ShardPosition
from tests.delivery.ledger.deliveries import cursor_at, delivery, finished, record, unfinished

NO_LIMIT = 1 << 50


async def test_a_half_recorded_event_is_not_recorded(ledger: Ledger) -> None:
    assert await ledger.recorded_place() == [ShardPosition(0, 0)]
    await ledger.flush(Flush(cursors=[cursor_at(65, "evt_x", "sub_y")]))
    assert await ledger.recorded_place() == [ShardPosition(0, 64, following_id="evt_x")]
    await ledger.flush(Flush(cursors=[cursor_at(66, "evt_z")]))
    assert await ledger.recorded_place() == [ShardPosition(0, 66, "evt_z")]


async def test_what_is_not_copied_yet_is_found(ledger: Ledger) -> None:
    """For each shard the ledger returns the lowest position that an unfinished delivery needs."""
    await ledger.flush(Flush([*(unfinished(number) for number in (1, 65, 129)), unfinished(2, shard=1)]))
    everywhere = [ShardPosition(0, 0), ShardPosition(1, 0)]
    assert await ledger.first_uncopied(everywhere) == [ShardPosition(0, 1), ShardPosition(1, 2)]
    assert await ledger.first_uncopied([ShardPosition(0, 1), ShardPosition(1, 2)]) == [ShardPosition(0, 65)]
    assert await ledger.uncopied(0, 0, 65, 10) == [ShardPosition(0, 1), ShardPosition(0, 65)]
    await ledger.keep_copies([record(1)])
    assert await ledger.first_uncopied(everywhere) == [ShardPosition(0, 65), ShardPosition(1, 2)]
    assert await ledger.uncopied(0, 0, 1000, 10) == [ShardPosition(0, 65), ShardPosition(0, 129)]
    assert await ledger.uncopied(0, 0, 1000, 1) == [ShardPosition(0, 65)]


async def test_copies_of_events_are_kept_as_long_as_they_are_needed(ledger: Ledger) -> None:
    """A copy is the event as it was; a second copy of an event changes nothing."""
    await ledger.flush(Flush([unfinished(1), unfinished(1, "b")]))
    await ledger.keep_copies([record(1)])
    await ledger.keep_copies([record(1)])
    assert await ledger.copies([ShardPosition(1, 1), ShardPosition(0, 1)]) == [record(1)]
    await ledger.flush(Flush(closed=[delivery(1).id], finished=[finished(1)]))
    assert (await ledger.trim(before_ms=None, bytes_max=NO_LIMIT)).copies == 0
    await ledger.flush(Flush(closed=[delivery(1, "b").id], finished=[finished(1, "b")]))
    assert (await ledger.trim(before_ms=None, bytes_max=NO_LIMIT)).copies == 1
    assert await ledger.copies([ShardPosition(0, 1)]) == []


async def test_copies_are_returned_in_the_order_asked_for(ledger: Ledger) -> None:
    numbers = random.Random(7).sample(range(1, 500), 200)
    await ledger.flush(Flush([unfinished(number) for number in numbers]))
    await ledger.keep_copies([record(number) for number in sorted(numbers)])
    assert await ledger.copies([ShardPosition(0, number) for number in numbers]) == [record(number) for number in numbers]
