import base64
import json

import pytest
from hooktide.event.v1.event_pb2 import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from services.cli.cloudevent import read
from services.delivery.model import ContentMode
from services.delivery.request.event_encoder import content
from tests.support.events import cloud_event

Value = CloudEvent.CloudEventAttributeValue


def event(data: str | bytes | None = None, kind: str = "") -> CloudEvent:
    typed = {"datacontenttype": kind} if kind else {}
    return cloud_event("7", "ü.x", data, subject="für 7 %", flag=Value(ce_boolean=True), **typed)


EVENTS = {
    "json": (event('{"id": 7, "name": "Käse"}', kind="application/json"), {"data": {"id": 7, "name": "Käse"}}),
    "json by default": (event("[1]"), {"data": [1]}),
    "text": (event("hällo", kind="text/plain; charset=utf-8"), {"data": "hällo"}),
    "xml": (event("<a/>", kind="application/xml"), {"data": "<a/>"}),
    "bytes": (event(b"\x00\xff", kind="image/png"), {"data_base64": "AP8="}),
    "nothing": (event(), {}),
}


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("mode", [ContentMode.STRUCTURED, ContentMode.BINARY, ContentMode.DATA_ONLY])
def test_what_delivery_sends_is_read_back_in_every_content_mode(mode: ContentMode, name: str) -> None:
    made, data = EVENTS[name]
    sent = content(made.SerializeToString(), mode)

    received = read(sent.headers, sent.body)

    assert received.mode == mode.name.lower()
    if mode is not ContentMode.DATA_ONLY:
        flag = True if mode is ContentMode.STRUCTURED else "true"
        attributes = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "ü.x", "subject": "für 7 %", "flag": flag}
        assert {key: received.event[key] for key in attributes} == attributes
    assert {key: value for key, value in received.event.items() if key in {"data", "data_base64"}} == data


@given(st.dictionaries(st.sampled_from(["content-type", "ce-specversion", "ce-type", "ce-"]), st.text()), st.binary())
def test_anything_at_all_is_read_as_something(headers: dict[str, str], body: bytes) -> None:
    json.dumps(read(headers, body).event)


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_is_shown_as_bytes(body: bytes) -> None:
    assert read({"content-type": "application/json"}, body).event["data_base64"] == base64.b64encode(body).decode()
    assert read({"content-type": "application/cloudevents+json"}, body).event == {}
