import base64
import json
from typing import Any

import orjson
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.event.v1.event_pb2 import CloudEvent

from gateway.translate.cloudevent_json import event_json
from tests.support.events import cloud_event
from tests.support.structured_body import structured

Value = CloudEvent.CloudEventAttributeValue
JSON_TEXT = '{"price": 1.10, "n": 12345678901234567890123, "f": 1e-400}'


def event(data: str | bytes | AnyMessage | None = None, content_type: str = "", **attributes: Any) -> CloudEvent:
    typed = {"datacontenttype": content_type} if content_type else {}
    return cloud_event("7", data=data, **typed, **attributes)


def text_of(cloud_event: CloudEvent) -> str:
    return orjson.dumps(event_json(cloud_event)).decode()


EVENTS = {
    "nothing": event(),
    "json by default": event(JSON_TEXT),
    "json": event(JSON_TEXT, "application/json; charset=utf-8"),
    "json of a format": event("[1]", "application/vnd.shop+json"),
    "json as bytes": event(b'{"a": 1.0}', "application/json"),
    "text of a type that only resembles json": event("[1]", "a b/json"),
    "bytes of a type that only resembles json": event(b"[1]", "image/svg or so+json"),
    "text": event('say "hi"', "text/plain"),
    "bytes": event(b"\x00\xff"),
    "typed bytes": event(b"\x89PNG", "image/png"),
    "a message": event(AnyMessage(type_url="type.example/x", value=b"\x08\x01")),
    "attributes": event(
        flag=Value(ce_boolean=True),
        number=Value(ce_integer=-7),
        subject=Value(ce_string="eu-7"),
        empty=Value(),
        raw=Value(ce_bytes=b"\x01\x02"),
        dataschema=Value(ce_uri="https://a.example/s"),
        next=Value(ce_uri_ref="/n"),
        time=Value(ce_timestamp=Timestamp(seconds=1_900_000_000, nanos=5_000_000)),
    ),
}


@pytest.mark.parametrize("name", EVENTS)
def test_the_api_shows_what_webhooks_carry(name: str) -> None:
    assert orjson.loads(text_of(EVENTS[name])) == orjson.loads(structured(EVENTS[name].SerializeToString()))


def test_json_is_passed_on_digit_by_digit() -> None:
    assert f'"data":{JSON_TEXT}' in text_of(EVENTS["json by default"])
    assert f'"data":{JSON_TEXT}' in text_of(EVENTS["json"])


def test_text_is_a_text_and_bytes_are_base64() -> None:
    assert json.loads(text_of(EVENTS["text"]))["data"] == 'say "hi"'
    assert base64.b64decode(json.loads(text_of(EVENTS["bytes"]))["data_base64"]) == b"\x00\xff"
    assert {"data", "data_base64"}.isdisjoint(json.loads(text_of(EVENTS["nothing"])))


def test_attributes_have_the_types_of_the_json_format() -> None:
    shown = json.loads(text_of(EVENTS["attributes"]))
    assert shown == {
        "specversion": "1.0",
        "id": "7",
        "source": "/shop",
        "type": "order.created",
        "flag": True,
        "number": -7,
        "subject": "eu-7",
        "empty": "",
        "raw": "AQI=",
        "dataschema": "https://a.example/s",
        "next": "/n",
        "time": "2030-03-17T17:46:40.005Z",
    }


@pytest.mark.parametrize("text", ["{", '"\\ud800"', "NaN", "", "[" * 5000])
def test_what_only_says_that_it_is_json_is_shown_as_text(text: str) -> None:
    assert json.loads(text_of(event(text)))["data"] == text
