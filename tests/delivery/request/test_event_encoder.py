import base64
import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.event.v1 import event_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.model import ContentMode
from services.delivery.request.event_encoder import CONTENT_TYPE, content
from tests.support.events import cloud_event
from tests.support.structured_body import structured

Value = event_pb2.CloudEvent.CloudEventAttributeValue
TIME = Timestamp()
TIME.FromDatetime(datetime(2030, 1, 31, 12, 0, 0, 120_000, tzinfo=UTC))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def event(data: str | bytes | AnyMessage | None = None, **attributes: Any) -> event_pb2.CloudEvent:
    return cloud_event("7", data=data, **attributes)


def body_of(made: event_pb2.CloudEvent) -> dict[str, object]:
    """Return what a receiver parses from the body."""
    body: dict[str, object] = json.loads(structured(made.SerializeToString()))
    return body


def content_type(text: str) -> Value:
    return Value(ce_string=text)


def test_an_event_without_data_has_its_four_attributes() -> None:
    assert body_of(event()) == {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.created"}
    assert CONTENT_TYPE == "application/cloudevents+json"


def test_every_type_of_attribute_has_its_form_in_json() -> None:
    made = event(
        text=Value(ce_string='für "x"'),
        number=Value(ce_integer=-2_147_483_648),
        truth=Value(ce_boolean=True),
        lie=Value(ce_boolean=False),
        uri=Value(ce_uri="https://consumer.example/a?b"),
        reference=Value(ce_uri_ref="../a"),
        raw=Value(ce_bytes=b"\x00\xff"),
        time=Value(ce_timestamp=TIME),
        empty=Value(ce_string=""),
    )
    attributes = {name: value for name, value in body_of(made).items() if name not in {"specversion", "id", "source", "type"}}
    assert attributes == {
        "text": 'für "x"',
        "number": -2_147_483_648,
        "truth": True,
        "lie": False,
        "uri": "https://consumer.example/a?b",
        "reference": "../a",
        "raw": "AP8=",
        "time": "2030-01-31T12:00:00.120Z",
        "empty": "",
    }


@pytest.mark.parametrize("kind", [None, "application/json", "application/json; charset=utf-8", "text/json", "application/vnd.shop+json"])
@pytest.mark.parametrize("text", ['{"b":1,  "a":[ 1.50,1e400, 12345678901234567890123]}', " null ", '"\\u00fc\\/"', "0.10"])
def test_json_is_passed_on_as_it_was_written(kind: str | None, text: str) -> None:
    """Spaces, order, escapes and digits stay: a number that is parsed and written again may change."""
    attributes = {} if kind is None else {"datacontenttype": content_type(kind)}
    for made in (event(text, **attributes), *([event(text.encode(), **attributes)] if kind else [])):
        assert structured(made.SerializeToString()).endswith(b',"data":' + text.encode() + b"}")


@given(json_values, st.sampled_from([None, 2]), st.booleans())
def test_any_json_arrives_as_the_value_it_was(value: object, indent: int | None, ascii_only: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert body_of(event(text))["data"] == value


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_that_is_no_json_arrives_as_text(text: str) -> None:
    assert body_of(event(text, datacontenttype=content_type("text/plain")))["data"] == text


@given(st.binary())
def test_binary_data_arrives_in_base64(raw: bytes) -> None:
    """Without a content type, bytes stay bytes, whatever they look like."""
    for attributes in ({}, {"datacontenttype": content_type("application/octet-stream")}):
        body = body_of(event(raw, **attributes))
        assert "data" not in body
        assert base64.b64decode(str(body["data_base64"]), validate=True) == raw


PACKED = AnyMessage()
PACKED.Pack(Duration(seconds=5))


@pytest.mark.parametrize("said", [None, "application/protobuf", 'application/protobuf; messageType="google.protobuf.Duration"'])
def test_a_protobuf_message_is_sent_as_its_own_bytes_with_its_type_as_the_schema(said: str | None) -> None:
    attributes = {} if said is None else {"datacontenttype": content_type(said)}
    made = event(PACKED, **attributes)
    body = body_of(made)
    assert Duration.FromString(base64.b64decode(str(body["data_base64"]))) == Duration(seconds=5)
    assert "data" not in body
    assert (body["datacontenttype"], body["dataschema"]) == (said or "application/protobuf", "type.googleapis.com/google.protobuf.Duration")

    binary = content(made.SerializeToString(), ContentMode.BINARY)
    assert Duration.FromString(binary.body) == Duration(seconds=5)
    assert binary.headers["content-type"] == (said or "application/protobuf")
    assert binary.headers["ce-dataschema"] == "type.googleapis.com/google.protobuf.Duration"
    assert content(made.SerializeToString(), ContentMode.DATA_ONLY).body == binary.body


@pytest.mark.parametrize("schema", [Value(ce_uri="https://shop.example/order.proto"), Value(ce_string="order")])
def test_the_schema_that_the_emitter_names_stays(schema: Value) -> None:
    made = event(PACKED, dataschema=schema)
    said = schema.ce_uri or schema.ce_string
    assert body_of(made)["dataschema"] == said
    assert content(made.SerializeToString(), ContentMode.BINARY).headers["ce-dataschema"] == said


def test_a_protobuf_message_without_a_type_has_no_schema() -> None:
    made = event(AnyMessage(value=b"\x08\x05"))
    assert "dataschema" not in body_of(made)
    assert "ce-dataschema" not in content(made.SerializeToString(), ContentMode.BINARY).headers


@given(
    st.dictionaries(st.from_regex(r"\A[a-z0-9]{1,8}\Z"), st.text(alphabet="abc", min_size=1), max_size=8), st.randoms(use_true_random=False)
)
def test_the_same_event_always_gives_the_same_bytes(attributes: dict[str, str], chance: random.Random) -> None:
    """The order of the attributes in the record does not matter."""
    names = list(attributes)
    one = event("1", **{name: Value(ce_string=attributes[name]) for name in names}).SerializeToString()
    chance.shuffle(names)
    other = event("1", **{name: Value(ce_string=attributes[name]) for name in names}).SerializeToString()
    assert structured(one) == structured(other)
    assert structured(one) == structured(one)


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"no event"])
def test_what_is_no_event_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a CloudEvent"):
        structured(raw)


def test_a_time_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"[Tt]imestamp"):
        structured(event(time=Value(ce_timestamp=Timestamp(seconds=10**15))).SerializeToString())
