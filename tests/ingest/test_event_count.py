from hooktide.ingest.v1 import ingest_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.event_count import count_events
from tests.support.events import cloud_event

MOST = 1000


def test_the_events_of_a_message_are_counted() -> None:
    for count in (0, 1, 7, MOST):
        message = ingest_pb2.PublishStreamRequest(events=[cloud_event(data="x" * (count % 300)) for _ in range(count)])
        assert count_events(message.SerializeToString(), MOST) == count


def test_counting_ends_beyond_the_limit() -> None:
    assert count_events(b"\x0a\x00" * 2_000_000, MOST) == MOST + 1


def test_fields_that_the_message_does_not_have_are_skipped_in_every_wire_type() -> None:
    event = b"\x0a\x03abc"
    others = [b"\x10\x96\x01", b"\x11" + bytes(8), b"\x12\x02\x0a\x00", b"\x15" + bytes(4), b"\x13\x14", b"\x8a\x80\x00\x00"]
    assert count_events(event.join([*others, b""]), MOST) == len(others) + 1


def test_a_number_without_an_end_does_not_take_long() -> None:
    """Both messages begin as an event does; adding up a number of a megabyte would take seconds."""
    assert count_events(b"\x0a" + b"\xff" * 1_000_000, MOST) <= 1
    assert count_events(b"\xff" * 1_000_000, MOST) == 0


@given(st.binary(max_size=300))
def test_no_message_holds_more_events_than_are_counted(message: bytes) -> None:
    count = count_events(message, MOST)
    try:
        parsed = ingest_pb2.PublishStreamRequest.FromString(message)
    except Exception:  # noqa: BLE001 - what the parser refuses need not be counted well
        return
    assert len(parsed.events) <= count


@given(st.lists(st.sampled_from([b"\x0a\x00", b"\x0a\x02\x10\x01", b"\x10\x05", b"\x13", b"\x14", b"\x8a\x00\x00", b"\x12\x02\x0a\x00"])))
def test_neither_does_one_made_of_pieces(pieces: list[bytes]) -> None:
    test_no_message_holds_more_events_than_are_counted.hypothesis.inner_test(b"".join(pieces))  # type: ignore[attr-defined]  # hypothesis adds it
