from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.eventlog.sqlite.event_ids import GrowingUuid7
from services.runtime.ids import id_text, is_id

TIMES_MS = st.integers(0, 2**47)
RANDOM_BITS = 74


def uuid7_of(ms: int, random: int) -> bytes:
    """Build a UUID of version 7 by RFC 9562, figure 8."""
    value = ms << 80 | 7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & (2**62 - 1)
    return value.to_bytes(16, "big")


def assert_is_uuid7(raw: bytes) -> None:
    assert len(raw) == 16
    assert raw[6] >> 4 == 7
    assert raw[8] >> 6 == 0b10
    assert is_id(id_text("evt", raw), "evt")


@given(st.lists(st.tuples(TIMES_MS, st.integers(0, 50)), max_size=20))
def test_ids_grow_strictly_whatever_the_clock_does(takes: list[tuple[int, int]]) -> None:
    maker = GrowingUuid7()
    made = []
    for now_ms, count in takes:
        ids = maker.take(now_ms, count)
        assert len(ids) == count
        made += ids
    for raw in made:
        assert_is_uuid7(raw)
    assert all(earlier < later for earlier, later in pairwise(made))


@given(TIMES_MS, st.integers(-(2**40), 2**40))
def test_an_id_carries_the_time_unless_the_clock_went_back(first_ms: int, step_ms: int) -> None:
    maker = GrowingUuid7()
    maker.take(first_ms, 3)
    second_ms = max(0, first_ms + step_ms)
    (raw,) = maker.take(second_ms, 1)
    assert int.from_bytes(raw[:6]) == max(first_ms, second_ms)


@given(TIMES_MS, st.integers(0, 2**RANDOM_BITS - 1), st.integers(-1000, 1000))
def test_ids_go_on_after_the_newest_in_use(last_ms: int, random: int, step_ms: int) -> None:
    """Ids also go on if the clock was put back meanwhile, and if the newest id has used up its random part."""
    last = uuid7_of(last_ms, random)
    made = [last, *GrowingUuid7(last).take(max(0, last_ms + step_ms), 20)]
    for raw in made:
        assert_is_uuid7(raw)
    assert all(earlier < later for earlier, later in pairwise(made))


def test_a_random_part_that_is_used_up_carries_into_the_millisecond() -> None:
    last = uuid7_of(1_800_000_000_000, 2**RANDOM_BITS - 1)
    (raw,) = GrowingUuid7(last).take(1_800_000_000_000, 1)
    assert raw > last
    assert int.from_bytes(raw[:6]) == 1_800_000_000_001
    assert_is_uuid7(raw)


def test_two_makers_do_not_meet() -> None:
    ids = [raw for _ in range(100) for raw in GrowingUuid7().take(1_800_000_000_000, 100)]
    assert len(set(ids)) == 10_000
