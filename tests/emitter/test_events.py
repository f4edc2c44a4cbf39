import base64
import json
import math
import pickle
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import hooktide
import pytest
from hooktide._events import FRAME_BYTES_MAX, JsonEncoder, build_event, frame_of
from hooktide.event.v1.event_pb2 import CloudEvent
from hooktide.ingest.v1.ingest_pb2 import PublishStreamRequest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

DEFAULTS: dict[str, Any] = dict.fromkeys(
    ("subject", "data", "id", "time", "datacontenttype", "partitionkey", "audience", "extensions"),
)


def built(**attributes: Any) -> CloudEvent:
    return build_event(**{**DEFAULTS, "type": "order.created", "source": "/shop", **attributes})


def test_defaults_make_a_valid_event() -> None:
    before = datetime.now(UTC)
    event = built()
    assert (event.spec_version, event.type, event.source) == ("1.0", "order.created", "/shop")
    assert event.id[14] == "7"
    assert before - timedelta(milliseconds=1) <= event.attributes["time"].ce_timestamp.ToDatetime(UTC) <= datetime.now(UTC)
    assert event.WhichOneof("data") is None
    assert set(event.attributes) == {"time"}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"id": 7, "name": "Käse"}, '{"id":7,"name":"Käse"}'),
        ([1, None], "[1,null]"),
        ("hello", '"hello"'),
        (7, "7"),
        (True, "true"),
        ("", '""'),
    ],
)
def test_data_is_json_by_default(data: object, text: str) -> None:
    event = built(data=data)
    assert event.text_data == text
    assert event.attributes["datacontenttype"].ce_string == "application/json"


@pytest.mark.parametrize("data", [b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff")], ids=lambda data: type(data).__name__)
def test_bytes_are_sent_as_they_are(data: object) -> None:
    assert built(data=data).binary_data == b"\x00\xff"
    assert built(data=data).attributes["datacontenttype"].ce_string == "application/octet-stream"
    assert built(data=data, datacontenttype="image/png").attributes["datacontenttype"].ce_string == "image/png"


def test_text_of_another_content_type_is_sent_as_it_is() -> None:
    event = built(data="<a/>", datacontenttype="application/xml")
    assert event.text_data == "<a/>"
    assert event.attributes["datacontenttype"].ce_string == "application/xml"


def test_json_of_another_content_type_is_still_json() -> None:
    event = built(data={"a": 1}, datacontenttype="application/merge-patch+json; charset=utf-8")
    assert event.text_data == '{"a":1}'
    assert event.attributes["datacontenttype"].ce_string == "application/merge-patch+json; charset=utf-8"


def test_times_uuids_and_decimals_in_json_are_text() -> None:
    event = built(
        data={
            "at": datetime(2031, 5, 6, 7, 8, 9, 500_000, tzinfo=UTC),
            "day": date(2031, 5, 6),
            "hour": time(7, 8),
            "id": UUID(int=7),
            "price": Decimal("0.10000000000000000001"),
        }
    )
    assert json.loads(event.text_data) == {
        "at": "2031-05-06T07:08:09.500000+00:00",
        "day": "2031-05-06",
        "hour": "07:08:00",
        "id": "00000000-0000-0000-0000-000000000007",
        "price": "0.10000000000000000001",
    }


class Order(BaseModel):
    """A model of somebody else's library."""

    id: UUID
    price: Decimal
    placed: datetime


def test_a_default_of_the_callers_turns_models_into_json() -> None:
    order = Order(id=UUID(int=7), price=Decimal("1.50"), placed=datetime(2031, 5, 6, tzinfo=UTC))
    for data in (order, {"order": [order]}):
        event = built(data=data, json_encoder=JsonEncoder(to_jsonable_python))
        assert order.model_dump_json() in event.text_data


def test_the_callers_default_comes_first_and_what_it_refuses_is_judged_as_without_it() -> None:
    def default(value: object) -> object:
        if isinstance(value, Decimal):
            return float(value)
        message = f"no {type(value).__name__}"
        raise TypeError(message)

    encoder = JsonEncoder(default)
    assert built(data=[Decimal("1.5"), UUID(int=1)], json_encoder=encoder).text_data == '[1.5,"00000000-0000-0000-0000-000000000001"]'
    with pytest.raises(hooktide.InvalidEvent, match="no set") as raised:
        built(data={"tags": {"a"}}, json_encoder=encoder)
    assert raised.value.field == "data"
    with pytest.raises(hooktide.InvalidEvent, match="a value of the type set cannot be converted to JSON"):
        built(data={"tags": {"a"}})


def test_a_default_that_returns_its_value_is_refused_and_one_that_breaks_is_the_callers() -> None:
    with pytest.raises(hooktide.InvalidEvent):
        built(data=[object()], json_encoder=JsonEncoder(lambda value: value))

    def broken(_value: object) -> object:
        raise KeyError("of the caller's own")

    with pytest.raises(KeyError):
        built(data=[object()], json_encoder=JsonEncoder(broken))


@pytest.mark.parametrize("name", hooktide.__all__)
def test_public_classes_are_named_by_the_public_module(name: str) -> None:
    public = getattr(hooktide, name)
    assert f"{public.__module__}.{public.__qualname__}" == f"hooktide.{name}"


def test_an_error_crosses_to_another_process_whole() -> None:
    error = hooktide.InvalidEvent("type: is required", reason="INVALID_ARGUMENT", field="type", outcome_unknown=True)
    error.event = CloudEvent(id="7")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - what was pickled just now
    assert type(again) is hooktide.InvalidEvent
    assert str(again) == "type: is required"
    assert (again.reason, again.field, again.retryable, again.outcome_unknown, again.event) == (
        "INVALID_ARGUMENT", "type", False, True, CloudEvent(id="7"),
    )  # fmt: skip
    closed = pickle.loads(pickle.dumps(hooktide.EmitterClosed("closed")))  # noqa: S301 - as above
    assert (str(closed), closed.reason) == ("closed", "EMITTER_CLOSED")


def test_attributes_have_the_types_of_their_values() -> None:
    time = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=timezone(timedelta(hours=2)))
    event = built(
        subject="eu-7",
        partitionkey="p",
        audience="con_1",
        time=time,
        extensions={
            "flag": True,
            "number": -5,
            "text": "x",
            "raw": b"\x01",
            "at": time,
            "dataschema": "https://schemas.example/order",
        },
    )
    attributes = event.attributes
    assert (attributes["subject"].ce_string, attributes["partitionkey"].ce_string, attributes["audience"].ce_string) == (
        "eu-7",
        "p",
        "con_1",
    )
    assert attributes["time"].ce_timestamp.ToDatetime(UTC) == time
    assert attributes["flag"].ce_boolean is True
    assert attributes["number"].ce_integer == -5
    assert attributes["text"].ce_string == "x"
    assert attributes["raw"].ce_bytes == b"\x01"
    assert attributes["at"].ce_timestamp.ToDatetime(UTC) == time
    assert attributes["dataschema"].ce_uri == "https://schemas.example/order"


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"time": datetime(2031, 1, 1)}, "attributes.time"),  # noqa: DTZ001 - what is to be refused
        ({"data": {"x": object}}, "data"),
        ({"data": math.nan}, "data"),
        ({"data": {"a": 1}, "datacontenttype": "text/plain"}, "data"),
        ({"data": "\ud800"}, "data"),
        ({"type": 7}, None),
        ({"source": None, "type": []}, None),
        ({"subject": 7}, None),
        ({"extensions": {"number": 2**31}}, "attributes.number"),
        ({"extensions": {"subject": "x"}}, "attributes.subject"),
        ({"extensions": {"list": []}}, "attributes.list"),
        ({"extensions": {"at": datetime(2031, 1, 1)}}, "attributes.at"),  # noqa: DTZ001 - what is to be refused
        ({"extensions": {7: "x"}}, None),
    ],
    ids=str,
)
def test_what_is_no_event_is_refused_before_it_is_sent(attributes: dict[str, Any], field: str | None) -> None:
    with pytest.raises(hooktide.InvalidEvent) as raised:
        built(**attributes)
    assert (raised.value.reason, raised.value.field, raised.value.retryable) == ("INVALID_ARGUMENT", field, False)


@given(st.lists(st.one_of(st.binary(max_size=300), st.integers(min_value=16_200, max_value=16_500).map(bytes)), max_size=8))
def test_a_message_is_the_concatenation_of_its_events_frames(payloads: list[bytes]) -> None:
    events = [built(data=payload) for payload in payloads]
    assert list(PublishStreamRequest.FromString(b"".join(frame_of(event) for event in events)).events) == events


@pytest.mark.parametrize("size", [1 << 21, FRAME_BYTES_MAX - 200])
def test_a_large_event_has_a_valid_frame(size: int) -> None:
    event = built(data=bytes(size))
    assert PublishStreamRequest.FromString(frame_of(event)).events[0] == event


def test_an_event_larger_than_any_message_is_refused() -> None:
    with pytest.raises(hooktide.InvalidEvent) as raised:
        frame_of(built(data=base64.b64encode(bytes(FRAME_BYTES_MAX))))
    assert raised.value.reason == "EVENT_TOO_LARGE"
