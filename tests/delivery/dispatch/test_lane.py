"""Lane: when its waiting rows are due, and which deliveries leave memory while rows are read."""

from hypothesis import given
from hypothesis import strategies as st

from services.delivery.dispatch.lane import Lane, RowReads, earlier
from services.delivery.model import Delivery


def delivery(number: int, subscription_id: str) -> Delivery:
    return Delivery(bytes([number]) * 16, f"evt_{number:032x}", 0, 0, number, "a", 0, subscription_id, "con_1", 1, None)


def test_its_next_row_is_the_earliest_and_a_read_begins_a_count_of_its_own() -> None:
    """`added_due_ms` counts only the rows that began to wait after the latest read began."""
    lane = Lane("sub_1")
    lane.row_waits(70)
    lane.row_waits(50)
    assert [lane.next_due_ms, lane.added_due_ms] == [50, 50]
    lane.added_due_ms = None
    lane.row_waits(60)
    assert [lane.next_due_ms, lane.added_due_ms] == [50, 60]


def test_a_read_gathers_what_leaves_memory_during_it_of_its_own_subscription() -> None:
    """A read of all subscriptions gathers everything; before its begin and after its end, a read gathers nothing."""
    reads, first, other = RowReads(), delivery(1, "sub_1"), delivery(2, "sub_2")
    reads.note(delivery(3, "sub_1"))
    with reads.track("sub_1") as own, reads.track() as everything:
        reads.note(first)
        reads.note(other)
    reads.note(delivery(4, "sub_1"))
    assert own == {first.id}
    assert everything == {first.id, other.id}


@given(st.none() | st.integers(0, 9), st.none() | st.integers(0, 9))
def test_earlier_takes_none_for_never(one: int | None, other: int | None) -> None:
    times = [time for time in (one, other) if time is not None]
    assert earlier(one, other) == (min(times) if times else None)
