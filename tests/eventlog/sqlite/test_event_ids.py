from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.eventlog.record import PARTITIONS, partition_of_event_id
from services.eventlog.sqlite.event_ids import EventIds
from services.runtime.ids import id_text, is_id

TIMES_MS = st.integers(0, 2**47)
COUNTERS = st.integers(0, 2**64 - 1)
PARTITION = st.integers(0, PARTITIONS - 1)
NOW_MS = 1_800_000_000_000


def id_of(ms: int, counter: int, partition: int) -> bytes:
    """Build an id from its bits: time 48, version 4, the counter's high 12, variant 2, the counter's low 52, partition 10."""
    bits = f"{ms:048b}" + "0111" + f"{counter >> 52:012b}" + "10" + f"{counter % 2**52:052b}" + f"{partition:010b}"
    return int(bits, 2).to_bytes(16, "big")


def parts_of(raw: bytes) -> tuple[int, int, int]:
    """Return time, counter and partition; the inverse of `id_of`."""
    bits = f"{int.from_bytes(raw, 'big'):0128b}"
    assert (len(raw), bits[48:52], bits[64:66]) == (16, "0111", "10")
    assert is_id(id_text("evt", raw), "evt")
    return int(bits[:48], 2), int(bits[52:64] + bits[66:118], 2), int(bits[118:], 2)


@given(st.lists(st.tuples(TIMES_MS, st.lists(PARTITION, max_size=50)), max_size=20))
def test_ids_grow_strictly_whatever_the_clock_does(takes: list[tuple[int, list[int]]]) -> None:
    """Time and counter alone grow strictly; each id carries its partition."""
    maker = EventIds()
    made = []
    for now_ms, partitions in takes:
        ids = maker.take(now_ms, partitions)
        assert [parts_of(raw)[2] for raw in ids] == partitions
        assert [partition_of_event_id(id_text("evt", raw)) for raw in ids] == partitions
        made += ids
    assert all(earlier < later for earlier, later in pairwise(made))
    assert all(earlier < later for earlier, later in pairwise(parts_of(raw)[:2] for raw in made))


@given(TIMES_MS, st.integers(-(2**40), 2**40))
def test_an_id_carries_the_time_unless_the_clock_went_back(first_ms: int, step_ms: int) -> None:
    maker = EventIds()
    maker.take(first_ms, [1, 2, 3])
    second_ms = max(0, first_ms + step_ms)
    (raw,) = maker.take(second_ms, [7])
    assert int.from_bytes(raw[:6]) == max(first_ms, second_ms)


@given(TIMES_MS, COUNTERS, PARTITION, st.integers(-1000, 1000))
def test_ids_go_on_after_the_newest_in_use(last_ms: int, counter: int, partition: int, step_ms: int) -> None:
    """Ids also go on if the clock was put back meanwhile, and if the newest id has used up its counter."""
    last = id_of(last_ms, counter, partition)
    made = [last, *EventIds(last).take(max(0, last_ms + step_ms), [0] * 20)]
    assert all(earlier < later for earlier, later in pairwise(parts_of(raw)[:2] for raw in made))


@given(TIMES_MS, st.integers(0, 2**64 - 2**41), PARTITION, st.integers(-1000, 0))
def test_the_counter_goes_on_from_the_newest_id(last_ms: int, counter: int, partition: int, step_ms: int) -> None:
    """Within the newest id's millisecond the counter goes on by a step of 1 to 2^40: no part of it is lost at a restart."""
    last = id_of(last_ms, counter, partition)
    (raw,) = EventIds(last).take(max(0, last_ms + step_ms), [PARTITIONS - 1])
    assert parts_of(raw)[0] == last_ms
    assert 1 <= parts_of(raw)[1] - counter <= 2**40


def test_a_counter_that_is_used_up_carries_into_the_millisecond() -> None:
    last = id_of(NOW_MS, 2**64 - 1, PARTITIONS - 1)
    (raw,) = EventIds(last).take(NOW_MS, [0])
    assert raw > last
    assert parts_of(raw)[0] == NOW_MS + 1


def test_two_makers_do_not_meet() -> None:
    ids = [raw for _ in range(100) for raw in EventIds().take(NOW_MS, [0] * 100)]
    assert len(set(ids)) == 10_000
