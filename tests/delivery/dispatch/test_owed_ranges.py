"""Owed ranges: events that are taken back are read again, and events that are written move the range."""

from dataclasses import replace

from services.delivery.dispatch.owed_ranges import begin, close, handed_out_through, is_done, is_read, next_range, take_back, take_written
from services.delivery.model import Delivery, OwedRange
from tests.delivery.ledger.deliveries import SUBSCRIPTION, delivery


def handed(count: int) -> tuple[OwedRange, list[Delivery]]:
    """Return a range that ends with position `count`, wholly handed out and waiting for more to be recorded."""
    owed = next_range(SUBSCRIPTION, [], now_ms=1)
    begin(owed, 1)
    close(owed, count)
    deliveries = [replace(delivery(position), owed=owed) for position in range(1, count + 1)]
    owed.handed.extend(deliveries)
    owed.read_through, owed.is_waiting = count, True
    return owed, deliveries


def test_events_that_are_taken_back_are_read_again_although_the_whole_range_was_read() -> None:
    owed, deliveries = handed(4)
    assert is_read(owed)
    assert take_back(owed, deliveries[1]) == 3
    assert [each.position for each in owed.handed] == [1]
    assert (owed.read_through, owed.is_waiting) == (1, False)
    assert not is_read(owed)
    assert handed_out_through([owed]) == 1


def test_a_range_is_done_once_the_last_of_it_is_written() -> None:
    owed, deliveries = handed(3)
    assert list(take_written(owed, lambda each: each is deliveries[2])) == deliveries[:2]
    assert (owed.at, is_done(owed)) == (2, False)
    assert list(take_written(owed, lambda _each: False)) == deliveries[2:]
    assert (owed.at, is_done(owed)) == (3, True)
    assert all(each.owed is None for each in deliveries)
