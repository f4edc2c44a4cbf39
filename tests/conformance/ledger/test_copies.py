"""Ledger, over every engine: how far events are recorded, and copies of events that the log is about to drop."""

import random

from services.delivery.ledger.protocol import Cursor, Flush, Ledger
from services.eventlog.record import PARTITIONS, Place
from tests.delivery.ledger.deliveries import delivery, finished, record, unfinished

NO_LIMIT = 1 << 50


async def test_a_half_recorded_event_is_not_recorded(ledger: Ledger) -> None:
    await ledger.flush(Flush(cursors=[Cursor(1, 65, "evt_x", "sub_y"), Cursor(2, 66, "evt_x", "")]))
    recorded = await ledger.recorded_places()
    assert [place.partition for place in recorded] == list(range(PARTITIONS))
    assert recorded[1:3] == [Place(1, 64, following_id="evt_x"), Place(2, 66, "evt_x")]


async def test_what_is_not_copied_yet_is_found(ledger: Ledger) -> None:
    """For each partition the ledger returns the lowest position that an unfinished delivery needs."""
    await ledger.flush(Flush([unfinished(number) for number in (1, 65, 129, 2)]))
    everywhere = [Place(partition, 0) for partition in range(PARTITIONS)]
    assert await ledger.first_uncopied_places(everywhere) == [Place(1, 1), Place(2, 2)]
    assert await ledger.first_uncopied_places([Place(1, 1), Place(2, 2)]) == [Place(1, 65)]
    assert await ledger.uncopied_places(1, 0, 65, 10) == [Place(1, 1), Place(1, 65)]
    await ledger.keep_copies([record(1)])
    assert await ledger.first_uncopied_places(everywhere) == [Place(1, 65), Place(2, 2)]
    assert await ledger.uncopied_places(1, 0, 1000, 10) == [Place(1, 65), Place(1, 129)]
    assert await ledger.uncopied_places(1, 0, 1000, 1) == [Place(1, 65)]


async def test_copies_of_events_are_kept_as_long_as_they_are_needed(ledger: Ledger) -> None:
    """A copy is the event as it was; a second copy of an event changes nothing."""
    await ledger.flush(Flush([unfinished(1), unfinished(1, "b")]))
    await ledger.keep_copies([record(1)])
    await ledger.keep_copies([record(1)])
    assert await ledger.copies([Place(2, 1), Place(1, 1)]) == [record(1)]
    await ledger.flush(Flush(closed=[delivery(1).id], finished=[finished(1)]))
    assert (await ledger.trim(before_ms=None, bytes_max=NO_LIMIT)).copies == 0
    await ledger.flush(Flush(closed=[delivery(1, "b").id], finished=[finished(1, "b")]))
    assert (await ledger.trim(before_ms=None, bytes_max=NO_LIMIT)).copies == 1
    assert await ledger.copies([Place(1, 1)]) == []


async def test_copies_are_returned_in_the_order_asked_for(ledger: Ledger) -> None:
    numbers = random.Random(7).sample(range(1, 500), 200)
    await ledger.flush(Flush([unfinished(number) for number in numbers]))
    await ledger.keep_copies([record(number) for number in sorted(numbers)])
    assert await ledger.copies([Place(number % 64, number) for number in numbers]) == [record(number) for number in numbers]
