from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.ids import SLOTS, id_bytes, id_text, is_id, new_id, new_subscription_id, slot_in_turn, slot_of

CONSUMERS = st.integers(0, 2**128 - 1).map(lambda number: f"con_{number:032x}")


def test_an_id_is_its_type_and_a_uuid_without_dots() -> None:
    made = new_id("sub")
    assert is_id(made, "sub")
    assert not is_id(made, "evt")
    assert "." not in made
    assert id_text("sub", id_bytes(made)) == made


def test_ids_sort_by_the_time_of_their_creation() -> None:
    made = [new_id("evt") for _ in range(1000)]
    assert sorted(made) == made
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    "text", ["", "sub_", "sub_" + "0" * 31, "sub_" + "0" * 33, "sub_" + "G" * 32, "sub_" + "0" * 32 + "\n", "SUB_" + "0" * 32]
)
def test_everything_else_is_not_an_id(text: str) -> None:
    assert not is_id(text, "sub")


@given(st.integers(0, SLOTS - 1))
def test_a_subscriptions_id_carries_its_slot_in_the_lowest_bits_of_a_uuid_of_version_7(slot: int) -> None:
    made = new_subscription_id(slot)
    raw = int.from_bytes(id_bytes(made))
    assert is_id(made, "sub")
    assert slot_of(made) == slot == raw & 0xFF
    assert (raw >> 76 & 0xF, raw >> 62 & 0b11) == (7, 0b10)


def test_ids_of_subscriptions_sort_by_the_time_of_their_creation() -> None:
    made = [new_subscription_id(slot % SLOTS) for slot in reversed(range(1000))]
    assert sorted(made) == made
    assert len(set(made)) == len(made)


@given(CONSUMERS, st.integers(0, 10**9))
def test_each_slot_has_its_turn_once_in_256_turns(consumer_id: str, first: int) -> None:
    assert sorted(slot_in_turn(consumer_id, first + number) for number in range(SLOTS)) == list(range(SLOTS))


@pytest.mark.parametrize("workers", [2, 4, 8, 16])
@given(consumer_id=CONSUMERS, first=st.integers(0, 10**6), rounds=st.integers(1, 5))
def test_as_many_subscriptions_as_workers_are_spread_evenly_over_their_intervals(
    workers: int, consumer_id: str, first: int, rounds: int
) -> None:
    """Worker i of N owns the slots from 256·i/N up to 256·(i+1)/N."""
    assert set(shares(consumer_id, first, rounds * workers, workers)) == {rounds}


@given(CONSUMERS, st.integers(0, 10**6), st.integers(1, 300), st.integers(1, 16))
def test_any_number_of_subscriptions_is_spread_evenly_over_any_number_of_workers(
    consumer_id: str, first: int, subscriptions: int, workers: int
) -> None:
    """The discrepancy of the sequence is below log2(n) + 1 for n consecutive members, so no worker's share is far from its part."""
    spread = shares(consumer_id, first, subscriptions, workers)
    assert max(spread) <= subscriptions / workers + subscriptions.bit_length() + 1


def test_the_first_subscriptions_of_many_consumers_are_spread_over_the_slots() -> None:
    """A sequence that began at the same slot for all consumers would put each one's first subscription on the same worker."""
    first = Counter(slot_in_turn(f"con_{number:032x}", 0) * 4 // SLOTS for number in range(1000))
    assert sum(first.values()) == 1000
    assert all(150 <= first[quarter] <= 350 for quarter in range(4))


def shares(consumer_id: str, first: int, subscriptions: int, workers: int) -> list[int]:
    """Return how many of a consumer's subscriptions each worker has."""
    owners = Counter(slot_in_turn(consumer_id, first + number) * workers // SLOTS for number in range(subscriptions))
    return [owners[worker] for worker in range(workers)]
