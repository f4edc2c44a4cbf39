import functools
import operator

from hypothesis import given
from hypothesis import strategies as st

from services.delivery.model import delivery_id, partition_of
from services.runtime.ids import id_bytes, id_text, is_id, new_id, slot_of

ids = st.uuids(version=4).map(lambda each: each.hex)


@given(ids, ids, ids)
def test_a_delivery_s_id_follows_from_what_it_is(event: str, subscription: str, replay: str) -> None:
    """The same event, subscription and replay give the same id; a different one of any of them gives a different id."""
    key = (f"evt_{event}", f"sub_{subscription}", "")
    first = delivery_id(*key)
    assert delivery_id(*key) == first
    assert is_id(id_text("dlv", first), "dlv")
    others = {delivery_id(new_id("evt"), key[1]), delivery_id(key[0], new_id("sub")), delivery_id(key[0], key[1], f"rpl_{replay}")}
    assert first not in others
    assert len(others) == 3


@given(ids, ids, st.integers(0, 3))
def test_a_delivery_s_id_is_a_uuid_of_version_8_with_time_slot_and_partition(event: str, subscription: str, nth: int) -> None:
    """In bits: the event's time 48, version 4, hash 12, variant 2, hash 44, the subscription's slot 8, the event's partition 10."""
    made = delivery_id(f"evt_{event}", f"sub_{subscription}", nth=nth)
    assert len(made) == 16
    assert made[:6] == id_bytes(f"evt_{event}")[:6]
    assert (made[6] >> 4, made[8] >> 6) == (8, 2)
    low = int.from_bytes(made, "big")
    assert low >> 10 & 0xFF == slot_of(f"sub_{subscription}")
    assert low & 0x3FF == partition_of(made) == int(event, 16) & 0x3FF


@given(ids, ids)
def test_the_further_ids_of_a_delivery_differ_in_their_hash_alone(event: str, subscription: str) -> None:
    made = [int.from_bytes(delivery_id(f"evt_{event}", f"sub_{subscription}", nth=nth), "big") for nth in range(3)]
    not_hashed = ~(((1 << 12) - 1) << 64 | ((1 << 44) - 1) << 18)
    assert len(set(made)) == 3
    assert len({each & not_hashed for each in made}) == 1


def test_the_hash_uses_all_of_its_bits() -> None:
    """Over many keys, each of the 56 bits is sometimes 0 and sometimes 1."""
    made = [int.from_bytes(delivery_id(f"evt_{number:032x}", "sub_" + "0" * 32), "big") for number in range(0, 64 * 1024, 1024)]
    hashed = ((1 << 12) - 1) << 64 | ((1 << 44) - 1) << 18
    assert functools.reduce(operator.or_, made) & hashed == hashed
    assert functools.reduce(operator.and_, made) & hashed == 0


def test_a_delivery_s_id_never_changes() -> None:
    """If ids were made in another way, an upgrade would repeat the deliveries under way."""
    made = delivery_id("evt_0192f0c1a2b37c4d8e5f60718293a4b5", "sub_0192f0c1a2b37c4d8e5f60718293a4b6")
    assert made.hex() == "0192f0c1a2b3879b9c993384f0aad8b5"
