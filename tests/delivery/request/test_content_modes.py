"""Content modes: events in the three modes, read back by the official SDK."""

import datetime as dt
import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.event.v1 import event_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.delivery.model import Content, ContentMode
from services.delivery.request.event_encoder import CONTENT_TYPE, content
from tests.support.events import cloud_event

CloudEvent, Value = event_pb2.CloudEvent, event_pb2.CloudEvent.CloudEventAttributeValue
XML = "<order id='7'>Grüße</order>"
PAYLOADS = {
    "json": (CloudEvent(text_data='{"id": 7,\n "ü": [1.0]}'), "application/json", '{"id": 7,\n "ü": [1.0]}'.encode()),
    "json bytes": (CloudEvent(binary_data=b'{"id":7}'), "application/problem+json; charset=utf-8", b'{"id":7}'),
    "text": (CloudEvent(text_data="plain\r\ntext ☃"), "text/plain", "plain\r\ntext ☃".encode()),
    "xml": (CloudEvent(text_data=XML), "application/xml; charset=utf-8", XML.encode()),
    "xml bytes": (CloudEvent(binary_data=XML.encode("latin-1")), "text/xml; charset=iso-8859-1", XML.encode("latin-1")),
    "bytes": (CloudEvent(binary_data=bytes(range(256))), "image/png", bytes(range(256))),
    "protobuf": (CloudEvent(binary_data=b"\x08\x07\x12\x00"), "application/protobuf", b"\x08\x07\x12\x00"),
}
ATTRIBUTES = {
    "subject": Value(ce_string='Euro € 😀 "quoted" 100%'),
    "time": Value(ce_timestamp=Timestamp(seconds=1_700_000_000, nanos=500_000_000)),
    "flag": Value(ce_boolean=True),
    "count": Value(ce_integer=-7),
    "digest": Value(ce_bytes=b"\x00\xff"),
    "dataschema": Value(ce_uri="https://schema.example/order?v=1%20"),
    "traceparent": Value(ce_string="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
}


def event(payload: event_pb2.CloudEvent, content_type: str = "", **attributes: Any) -> bytes:
    made = cloud_event("e 1", data=None, source="/shöp", **attributes)
    if content_type:
        made.attributes["datacontenttype"].ce_string = content_type
    made.MergeFrom(payload)
    return made.SerializeToString()


def sdk_reads(sent: Content) -> tuple[dict[str, object], object]:
    """Return what the official SDK reads from a request: the attributes and the data."""
    read = from_http_event(HTTPMessage(sent.headers, sent.body))
    return read.get_attributes(), read.get_data()


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("mode", [ContentMode.BINARY, ContentMode.DATA_ONLY])
def test_a_payload_is_the_body_byte_for_byte_under_its_own_content_type(name: str, mode: ContentMode) -> None:
    payload, content_type, body = PAYLOADS[name]
    sent = content(event(payload, content_type), mode)
    assert (sent.body, sent.headers["content-type"]) == (body, content_type)


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_sdk_reads_the_same_event_in_binary_and_structured_mode(name: str) -> None:
    """Except for what binary mode cannot express: the SDK reads bytes that look like JSON or text as JSON or text."""
    payload, content_type, body = PAYLOADS[name]
    raw = event(payload, content_type, **ATTRIBUTES)
    attributes, data = sdk_reads(content(raw, ContentMode.BINARY))
    assert attributes == {
        "specversion": "1.0",
        "id": "e 1",
        "source": "/shöp",
        "type": "order.created",
        "datacontenttype": content_type,
        "subject": 'Euro € 😀 "quoted" 100%',
        "time": dt.datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=dt.UTC),
        "flag": "true",
        "count": "-7",
        "digest": "AP8=",
        "dataschema": "https://schema.example/order?v=1%20",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
    structured_attributes, structured_data = sdk_reads(content(raw, ContentMode.STRUCTURED))
    assert {key: str(value).lower() for key, value in structured_attributes.items()} == {
        key: str(value).lower() for key, value in attributes.items()
    }
    if "json" in name:
        assert data == structured_data == json.loads(body)
    else:
        as_bytes = [each if isinstance(each, bytes) else str(each).encode() for each in (data, structured_data)]
        assert as_bytes == [body, body]


def test_what_cannot_stand_in_a_header_is_percent_encoded_and_nothing_else() -> None:
    """The examples include the one of the specification."""
    subject = "Euro € 😀\"%!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
    headers = content(event(CloudEvent(), subject=Value(ce_string=subject)), ContentMode.BINARY).headers
    assert headers["ce-subject"] == "Euro%20%E2%82%AC%20%F0%9F%98%80%22%25!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
    assert (headers["ce-id"], headers["ce-source"]) == ("e%201", "/sh%C3%B6p")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_text_is_one_visible_header_line_that_the_sdk_reads_back(text: str) -> None:
    sent = content(event(CloudEvent(), subject=Value(ce_string=text)), ContentMode.BINARY)
    value = sent.headers["ce-subject"]
    assert value.isascii()
    assert value.isprintable()
    assert " " not in value
    assert sdk_reads(sent)[0]["subject"] == text


@pytest.mark.parametrize("mode", ContentMode)
def test_the_content_type_never_comes_as_an_attribute_header(mode: ContentMode) -> None:
    payload, content_type, _ = PAYLOADS["xml"]
    headers = content(event(payload, content_type), mode).headers
    assert "ce-datacontenttype" not in headers
    assert mode is ContentMode.BINARY or not any(name.startswith("ce-") for name in headers)
    assert all(name == name.lower() for name in headers)


@pytest.mark.parametrize(
    ("payload", "said", "sent"),
    [
        (CloudEvent(text_data="{}"), "", "application/json"),
        (CloudEvent(binary_data=b"\x00"), "", "application/octet-stream"),
        (CloudEvent(proto_data=AnyMessage(type_url="t/x", value=b"\x08")), "", "application/protobuf"),
        (CloudEvent(text_data="x"), "text/plain; name=ü", "application/octet-stream"),
        (CloudEvent(text_data="x"), " text/plain", "application/octet-stream"),
        (CloudEvent(), "text/plain", "text/plain"),
        (CloudEvent(), "", None),
    ],
)
@pytest.mark.parametrize("mode", [ContentMode.BINARY, ContentMode.DATA_ONLY])
def test_a_content_type_that_is_missing_or_no_header_has_a_stand_in(
    mode: ContentMode, payload: event_pb2.CloudEvent, said: str, sent: str | None
) -> None:
    assert content(event(payload, said), mode).headers.get("content-type") == sent


def test_a_protobuf_message_is_sent_as_structured_mode_has_it() -> None:
    raw = event(CloudEvent(proto_data=AnyMessage(type_url="type.example/shop.Order", value=b"\x08\x07")), "application/protobuf")
    _, data = sdk_reads(content(raw, ContentMode.STRUCTURED))
    assert content(raw, ContentMode.BINARY).body == data
    assert content(raw, ContentMode.DATA_ONLY).body == data == b"\x08\x07"


def test_structured_mode_has_only_the_content_type_as_header_and_the_data_as_it_was_sent() -> None:
    assert content(event(*PAYLOADS["json"][:2]), ContentMode.STRUCTURED) == Content(
        {"content-type": CONTENT_TYPE},
        '{"specversion":"1.0","id":"e 1","source":"/shöp","type":"order.created","datacontenttype":"application/json",'
        '"data":{"id": 7,\n "ü": [1.0]}}'.encode(),
    )


@pytest.mark.parametrize("mode", ContentMode)
def test_bytes_that_are_no_event_are_refused(mode: ContentMode) -> None:
    with pytest.raises(ValueError, match="not a CloudEvent"):
        content(b"\xff\xff", mode)
