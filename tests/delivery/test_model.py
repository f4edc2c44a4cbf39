from hypothesis import given
from hypothesis import strategies as st

from services.delivery.model import delivery_id
from services.runtime.ids import id_bytes, id_text, is_id, new_id

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


@given(ids, ids)
def test_a_delivery_s_id_is_a_uuid_of_version_8_with_the_event_s_time(event: str, subscription: str) -> None:
    made = delivery_id(f"evt_{event}", f"sub_{subscription}")
    assert len(made) == 16
    assert made[:6] == id_bytes(f"evt_{event}")[:6]
    assert (made[6] >> 4, made[8] >> 6) == (8, 2)


def test_a_delivery_s_id_never_changes() -> None:
    """If ids were made in another way, an upgrade would repeat the deliveries under way."""
    assert delivery_id("evt_0192f0c1a2b37c4d8e5f60718293a4b5", "sub_0192f0c1a2b37c4d8e5f60718293a4b6").hex() == (
        "0192f0c1a2b3879b9c993384f0a88c6c"
    )
