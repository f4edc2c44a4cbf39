import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.event.v1.event_pb2 import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from services.eventlog.record import NewEvent, partition_of
from services.ingest.event_validation import EventRefusal, validate_event
from services.runtime.errors import Reason
from services.runtime.ids import new_id
from tests.support.events import cloud_event, event_of_size

Value = CloudEvent.CloudEventAttributeValue
LIMIT = 256 * 1024
CONSUMER = new_id("con")


def taken(event: CloudEvent) -> NewEvent:
    return validate_event(event, bytes_max=LIMIT)


def refused(event: CloudEvent, bytes_max: int = LIMIT) -> EventRefusal:
    with pytest.raises(EventRefusal) as caught:
        validate_event(event, bytes_max=bytes_max)
    return caught.value


def refused_field(event: CloudEvent) -> str:
    refusal = refused(event)
    assert refusal.reason is Reason.INVALID_ARGUMENT
    assert refusal.message.startswith(refusal.field)
    return refusal.field


def with_attribute(name: str, value: Value) -> CloudEvent:
    event = cloud_event("1")
    event.attributes[name].CopyFrom(value)
    return event


def test_an_event_is_taken_as_it_is() -> None:
    event = cloud_event("7", type_="order.paid", data='{"a":  1}', subject="eu-7", audience=CONSUMER, time="2030-01-31T12:00:00Z")
    new = taken(event)
    assert (new.source, new.id, new.type, new.audience) == ("/shop", "7", "order.paid", CONSUMER)
    assert CloudEvent.FromString(new.event) == event
    assert len(new.digest) == 32


@pytest.mark.parametrize("version", ["", "0.3", "1", "1.0.2", "1.1"])
def test_only_version_1_0_is_taken(version: str) -> None:
    event = cloud_event()
    event.spec_version = version
    assert refused_field(event) == "spec_version"


def test_types_and_sources_of_notices_are_refused_from_emitters() -> None:
    assert refused_field(cloud_event(type_="hooktide.delivery.exhausted", audience=CONSUMER)) == "type"
    assert "reserved" in refused(cloud_event(type_="hooktide.x")).message
    assert refused_field(cloud_event(source="/hooktide/reg_1")) == "source"


def test_a_service_publishes_notices_and_nothing_else() -> None:
    notice = cloud_event(type_="hooktide.delivery.exhausted", source="/hooktide/reg_1", audience=CONSUMER)
    assert validate_event(notice, bytes_max=LIMIT, is_notice=True).type == "hooktide.delivery.exhausted"
    for wrong, field in (
        (cloud_event(source="/hooktide/reg_1", audience=CONSUMER), "type"),
        (cloud_event(type_="hooktide.x", audience=CONSUMER), "source"),
        (cloud_event(type_="hooktide.x", source="/hooktide/reg_1"), "attributes.audience"),
    ):
        with pytest.raises(EventRefusal) as caught:
            validate_event(wrong, bytes_max=LIMIT, is_notice=True)
        assert caught.value.field == field


LIMITS = [("id", 256), ("source", 1024), ("type", 256)]


@pytest.mark.parametrize(("name", "limit"), LIMITS)
def test_a_required_attribute_has_1_to_so_many_bytes(name: str, limit: int) -> None:
    event = cloud_event()
    for text, fits in [
        ("", False),
        ("x", True),
        ("x" * limit, True),
        ("x" * (limit + 1), False),
        ("é" * (limit // 2), True),
        ("é" * limit, False),
    ]:
        setattr(event, name, text)
        if fits:
            assert getattr(taken(event), name) == text
        else:
            assert refused_field(event) == name


FORBIDDEN = ["\x00", "\x1f", "\n", "\x7f", "\x80", "\x9f", "\ufdd0", "\ufdef", "\ufffe", "\uffff", "\U0001fffe", "\U0010ffff"]
PERMITTED = [" ", "~", "\xa0", "é", "\u200b", "\ufdcf", "\ufffd", "\U0001f6d2", "\U0001fffd", "\ue000"]


@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "anything"])
def test_control_characters_and_noncharacters_are_refused_others_are_not(name: str) -> None:
    for char in FORBIDDEN + PERMITTED:
        event = cloud_event()
        text = f"a{char}b"
        if name in {"id", "source", "type"}:
            setattr(event, name, text)
        else:
            event.attributes[name].ce_string = text
        if char in PERMITTED:
            taken(event)
        else:
            assert refused_field(event).endswith(name)


def test_the_size_limit_is_exact() -> None:
    """The size is checked before anything else."""
    event = event_of_size(5000)
    assert len(validate_event(event, bytes_max=5000).event) == 5000
    assert refused(event, bytes_max=4999).reason is Reason.EVENT_TOO_LARGE
    event.spec_version = ""
    assert refused(event, bytes_max=1000).reason is Reason.EVENT_TOO_LARGE


@pytest.mark.parametrize(
    "name", ["", "Subject", "a-b", "a_b", "a.b", "é", "x" * 65, "id", "source", "type", "specversion", "data", "data_base64", "a\n", "1 "]
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    assert refused_field(with_attribute(name, Value(ce_string="x"))).startswith("attributes.")


@pytest.mark.parametrize("name", ["a", "0", "x" * 64, "subject", "dataschema", "traceparent"])
def test_a_name_of_letters_and_digits_is_taken(name: str) -> None:
    taken(with_attribute(name, Value(ce_string="x")))


def test_the_number_of_attributes_is_bounded() -> None:
    event = cloud_event(**{f"a{number}": "x" for number in range(64)})
    taken(event)
    event.attributes["a64"].ce_string = "x"
    assert refused_field(event) == "attributes"


def test_an_attribute_without_a_value_is_refused() -> None:
    assert refused_field(with_attribute("subject", Value())) == "attributes.subject"
    assert refused_field(with_attribute("subject", Value(ce_string=""))) == "attributes.subject"


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (Value(ce_string="x" * 4096), Value(ce_string="x" * 4097)),
        (Value(ce_string="é" * 2048), Value(ce_string="é" * 2049)),
        (Value(ce_bytes=b"x" * 4096), Value(ce_bytes=b"x" * 4097)),
        (Value(ce_uri="u:" + "x" * 4094), Value(ce_uri="u:" + "x" * 4095)),
        (Value(ce_uri_ref="/" + "x" * 4095), Value(ce_uri_ref="/" + "x" * 4096)),
    ],
)
def test_an_attribute_has_at_most_4096_bytes(small: Value, large: Value) -> None:
    taken(with_attribute("any", small))
    assert refused_field(with_attribute("any", large)) == "attributes.any"


@pytest.mark.parametrize(
    "value", [Value(ce_boolean=False), Value(ce_integer=-(2**31)), Value(ce_bytes=b""), Value(ce_timestamp=Timestamp())]
)
def test_other_kinds_of_values_are_taken(value: Value) -> None:
    taken(with_attribute("any", value))


@pytest.mark.parametrize("value", [Value(ce_uri=""), Value(ce_uri="u:\x00"), Value(ce_uri_ref="a\x7f")])
def test_a_uri_is_text_as_well(value: Value) -> None:
    assert refused_field(with_attribute("any", value)) == "attributes.any"


@pytest.mark.parametrize("name", ["audience", "partitionkey", "subject", "datacontenttype"])
def test_what_routing_reads_must_be_a_string(name: str) -> None:
    for value in (Value(ce_integer=1), Value(ce_bytes=b"x"), Value(ce_uri="u:x")):
        assert refused_field(with_attribute(name, value)) == f"attributes.{name}"


TIMES = [
    "2030-01-31T12:00:00Z",
    "2030-01-31t12:00:00z",
    "2030-01-31T12:00:00.123456789+05:30",
    "2024-02-29T23:59:60-00:00",
    "0000-12-31T00:00:00Z",
    "9999-12-31T23:59:59.9Z",
]
NO_TIMES = [
    "2030-01-31",
    "2030-01-31 12:00:00Z",
    "2030-01-31T12:00:00",
    "2030-01-31T12:00Z",
    "2030-1-31T12:00:00Z",
    "2030-13-01T12:00:00Z",
    "2030-00-01T12:00:00Z",
    "2030-02-30T12:00:00Z",
    "2023-02-29T12:00:00Z",
    "2030-01-00T12:00:00Z",
    "2030-01-31T24:00:00Z",
    "2030-01-31T12:60:00Z",
    "2030-01-31T12:00:61Z",
    "2030-01-31T12:00:00.Z",
    "2030-01-31T12:00:00.1234567890Z",
    "2030-01-31T12:00:00+24:00",
    "2030-01-31T12:00:00+0530",
    "٢٠٣٠-01-31T12:00:00Z",
    "1795506478",
]


@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_taken(text: str) -> None:
    taken(cloud_event(time=text))


@pytest.mark.parametrize("text", NO_TIMES)
def test_a_time_that_is_none_is_refused(text: str) -> None:
    assert refused_field(cloud_event(time=text)) == "attributes.time"


def test_a_time_may_be_a_timestamp_within_its_range() -> None:
    taken(with_attribute("time", Value(ce_timestamp=Timestamp(seconds=1_800_000_000, nanos=5))))
    for wrong in (Timestamp(seconds=2**40), Timestamp(seconds=-(2**40)), Timestamp(nanos=-1), Timestamp(nanos=10**9)):
        assert refused_field(with_attribute("time", Value(ce_timestamp=wrong))) == "attributes.time"
    assert refused_field(with_attribute("time", Value(ce_integer=1))) == "attributes.time"


@pytest.mark.parametrize(
    "audience", ["con_", "con_" + "g" * 32, "con_" + "0" * 31, "sub_" + "1" * 32, "*", f"CON_{'A' * 32}", "con_" + "a" * 32 + " "]
)
def test_an_audience_is_the_id_of_a_consumer(audience: str) -> None:
    assert refused_field(cloud_event(audience=audience)) == "attributes.audience"


def test_the_partition_is_chosen_by_key_then_subject_then_id() -> None:
    assert taken(cloud_event("7", subject="eu", partitionkey="k")).partition == partition_of("k")
    assert taken(cloud_event("7", subject="eu")).partition == partition_of("/shop\x00eu")
    assert taken(cloud_event("7")).partition == partition_of("7")


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "Application/JSON; charset=utf-8", "text/json", "application/vnd.shop+json"]
)
def test_text_that_says_it_is_json_must_be(content_type: str) -> None:
    attributes = {"datacontenttype": content_type} if content_type else {}
    taken(cloud_event(data="[1]", **attributes))
    for text in ("", "[1", "a=1", '{"a":1,"a":1}'):
        assert refused_field(cloud_event(data=text, **attributes)) == "data"


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/json-seq", "json", "application/jsonx"])
def test_other_text_may_be_anything(content_type: str) -> None:
    for text in ("", "[1", '{"a":1,"a":1}'):
        assert taken(cloud_event(data=text, datacontenttype=content_type)).event


def test_bytes_are_json_only_where_they_say_so() -> None:
    event = cloud_event()
    event.binary_data = b"\xff\x00"
    taken(event)
    event.attributes["datacontenttype"].ce_string = "application/json"
    assert refused_field(event) == "data"
    event.binary_data = b"{}"
    taken(event)


def test_a_protobuf_message_and_no_data_at_all_are_taken() -> None:
    event = cloud_event()
    event.proto_data.Pack(Timestamp(seconds=1))
    taken(event)
    event.ClearField("proto_data")
    event.attributes["datacontenttype"].ce_string = "application/json"
    assert event.WhichOneof("data") is None
    taken(event)


@pytest.mark.parametrize(
    ("kind", "field"),
    [("application/protobuf", None), ("application/x-protobuf", None), ("application/json", "data"), ("a/b+json", "data")],
)
def test_a_protobuf_message_that_is_said_to_be_json_is_refused(kind: str, field: str | None) -> None:
    event = cloud_event()
    event.proto_data.Pack(Timestamp(seconds=1))
    event.attributes["datacontenttype"].ce_string = kind
    if field is None:
        taken(event)
    else:
        assert refused_field(event) == field


@pytest.mark.parametrize("type_url", ["type.example/a\nb", "t" * 4097])
def test_the_type_url_of_a_protobuf_message_must_fit_into_an_attribute(type_url: str) -> None:
    event = cloud_event()
    event.proto_data.type_url = type_url
    assert refused_field(event) == "proto_data.type_url"


# The digest


@st.composite
def events(draw: st.DrawFn) -> CloudEvent:
    """Events with parts that are easily confused with one another."""
    texts = st.sampled_from(["a", "b", "ab", "a=b", "1", "True", "/a", "text_data", "ce_integer:1", "ce_boolean:True", "subject=a"])
    event = CloudEvent(id=draw(texts), source=draw(texts), type=draw(texts), spec_version="1.0")
    values = st.one_of(
        texts.map(lambda text: Value(ce_string=text)),
        texts.map(lambda text: Value(ce_uri=text)),
        texts.map(lambda text: Value(ce_uri_ref=text)),
        texts.map(lambda text: Value(ce_bytes=text.encode())),
        st.booleans().map(lambda truth: Value(ce_boolean=truth)),
        st.sampled_from([0, 1]).map(lambda number: Value(ce_integer=number)),
        st.sampled_from([0, 1]).map(lambda second: Value(ce_timestamp=Timestamp(seconds=second))),
    )
    for name, value in draw(st.dictionaries(st.sampled_from(["a", "b", "ab", "subjects"]), values, max_size=3)).items():
        event.attributes[name].CopyFrom(value)
    for name, text in draw(st.dictionaries(st.sampled_from(["subject", "traceparent", "tracestate"]), texts, max_size=3)).items():
        event.attributes[name].ce_string = text
    kind = draw(st.sampled_from(["none", "text", "binary", "proto"]))
    if kind == "text":
        event.text_data = draw(st.sampled_from(["1", "true", '"a"']))
    elif kind == "binary":
        event.binary_data = draw(st.sampled_from([b"", b"1", b"true", b"a"]))
    elif kind == "proto":
        event.proto_data.CopyFrom(AnyMessage(type_url=draw(texts), value=draw(st.sampled_from([b"", b"1"]))))
    return event


def without_trace(event: CloudEvent) -> tuple[object, ...]:
    """Return everything that makes an event the same event, in a form that compares by value."""
    attributes = {name: value.SerializeToString() for name, value in event.attributes.items() if name not in {"traceparent", "tracestate"}}
    kind = event.WhichOneof("data")
    data = kind and (event.proto_data.SerializeToString() if kind == "proto_data" else getattr(event, kind))
    return event.id, event.source, event.type, tuple(sorted(attributes.items())), kind, data


@given(events(), events())
def test_two_events_have_one_digest_exactly_if_they_are_the_same_event(first: CloudEvent, second: CloudEvent) -> None:
    assert (taken(first).digest == taken(second).digest) is (without_trace(first) == without_trace(second))


@given(events(), st.randoms(use_true_random=False), st.sampled_from(["", "00-1-2-01", "00-3-4-00"]))
def test_the_order_of_attributes_and_the_trace_context_do_not_count(event: CloudEvent, random: object, trace: str) -> None:
    again = CloudEvent()
    again.CopyFrom(event)
    again.attributes.clear()
    names = sorted(event.attributes)
    random.shuffle(names)  # type: ignore[attr-defined]  # the strategy gives a random.Random
    for name in names:
        again.attributes[name].CopyFrom(event.attributes[name])
    if trace:
        again.attributes["traceparent"].ce_string = trace
    assert taken(again).digest == taken(event).digest


@given(events(), events())
def test_one_part_of_another_event_makes_another_event(event: CloudEvent, other: CloudEvent) -> None:
    for part in ("id", "source", "type", "attributes", "data"):
        changed = CloudEvent()
        changed.CopyFrom(event)
        if part == "attributes":
            changed.attributes.clear()
            for name, value in other.attributes.items():
                changed.attributes[name].CopyFrom(value)
        elif part == "data":
            kind = other.WhichOneof("data")
            changed.ClearField(event.WhichOneof("data") or "text_data")
            if kind == "proto_data":
                changed.proto_data.CopyFrom(other.proto_data)
            elif kind:
                setattr(changed, kind, getattr(other, kind))
        else:
            setattr(changed, part, getattr(other, part))
        assert (taken(changed).digest == taken(event).digest) is (without_trace(changed) == without_trace(event))
