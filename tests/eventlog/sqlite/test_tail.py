import asyncio

from hypothesis import given
from hypothesis import strategies as st

from services.eventlog.record import Record
from services.eventlog.sqlite.tail import Tail

RECORDS_MAX = 16_384
BYTES_MAX = 32 * 1024 * 1024


def records(positions: list[int], size_bytes: int = 1) -> list[Record]:
    return [Record(0, 0, position, f"evt_{position}", "t", "/s", "", 0, b"x" * size_bytes) for position in positions]


def held(tail: Tail) -> list[Record]:
    return list(tail.after(tail.start, 1_000_000, 1 << 40))


@given(
    st.integers(0, 1000),
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=8), min_size=1, max_size=10),
    st.integers(1, 10),
    st.integers(1, 10),
    st.data(),
)
def test_what_follows_a_position_is_found_within_its_bounds(
    head: int, groups: list[list[int]], records_max: int, bytes_max: int, data: st.DataObject
) -> None:
    """Positions may have gaps; the last record may exceed the limit in bytes."""
    tail, made, position = Tail(head), list[Record](), head
    for gaps in groups:
        group = []
        for gap in gaps:
            position += gap
            group.append(position)
        made += records(group)
        tail.extend(records(group))
    after = data.draw(st.integers(head, position))
    expected = [record for record in made if record.position > after][: min(records_max, bytes_max)]
    assert tail.after(after, records_max, bytes_max) == expected
    assert (tail.start, tail.end) == (head, position)


def test_the_newest_records_stay_and_their_number_is_bounded() -> None:
    tail = Tail(0)
    for start in range(1, 40_001, 100):
        tail.extend(records(list(range(start, start + 100))))
        kept = held(tail)
        assert len(kept) <= RECORDS_MAX
        assert [record.position for record in kept] == list(range(tail.start + 1, tail.end + 1))
    assert tail.end == 40_000
    assert len(held(tail)) >= RECORDS_MAX // 2


def test_the_bytes_kept_are_bounded() -> None:
    tail = Tail(0)
    for start in range(1, 101, 5):
        tail.extend(records(list(range(start, start + 5)), 1024 * 1024))
        assert sum(len(record.event) for record in held(tail)) <= BYTES_MAX
        assert held(tail)[-1].position == tail.end


def test_a_group_larger_than_the_bounds_leaves_its_newest() -> None:
    tail = Tail(0)
    tail.extend(records(list(range(1, 100_001))))
    assert held(tail)[-1].position == 100_000
    assert 0 < len(held(tail)) <= RECORDS_MAX
    tail.extend(records([100_001], BYTES_MAX + 1))
    assert [record.position for record in held(tail)] == [100_001]
    assert tail.start == 100_000


def test_at_least_one_record_is_found_however_large() -> None:
    tail = Tail(0)
    tail.extend(records([1, 2], 1000))
    assert [record.position for record in tail.after(0, 10, 1)] == [1]


async def test_growing_wakes_everyone_who_waits() -> None:
    tail = Tail(0)
    waiting = [asyncio.ensure_future(tail.wait_for_growth()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiting)
    tail.extend(records([1]))
    async with asyncio.timeout(60):
        await asyncio.gather(*waiting)
    again = asyncio.ensure_future(tail.wait_for_growth())
    await asyncio.sleep(0)
    assert not again.done()
    tail.wake()
    async with asyncio.timeout(60):
        await again


async def test_one_who_stops_waiting_does_not_disturb_the_others() -> None:
    tail = Tail(0)
    first, second = (asyncio.ensure_future(tail.wait_for_growth()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    tail.extend(records([1]))
    async with asyncio.timeout(60):
        await second
