"""CloudEvents of any kind: refused with a reason, or carried through the log into a webhook body that is valid JSON."""

import base64
import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import orjson
import pytest
import pytest_asyncio
from google.protobuf.message import DecodeError
from hooktide.event.v1.event_pb2 import CloudEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.translate.cloudevent_json import event_json
from services.eventlog.record import Appended, NewEvent, ShardPosition
from services.eventlog.sqlite.log import SqliteEventLog, open_sqlite_log
from services.ingest.event_validation import EventRefusal, validate_event
from services.runtime.clock import SystemClock
from tests.support.structured_body import structured

_BYTES_MAX = 64 * 1024
_numbers = count()
PLAIN = st.text("abcäß漢💧 \"\\'/\u2028", min_size=1, max_size=20)
ODD = st.text(max_size=20) | st.sampled_from(["", "\x00", "\ufffe", "a" * 5000])
TEXT = st.sampled_from(range(16)).flatmap(lambda number: ODD if number == 11 else PLAIN)  # hypothesis would take both equally often
ATTRIBUTES = ["subject", "time", "datacontenttype", "dataschema", "partitionkey", "traceparent", "data", "id", "x"]
NAMES = st.text("abcdefxyz0123456789", min_size=1, max_size=8) | st.sampled_from([*ATTRIBUTES, "a_b"])
CONTENT_TYPES = st.sampled_from(
    ["application/json", "text/json", "application/cloudevents+json; charset=utf-8", "text/plain", "image/png", "APPLICATION/JSON", "json"]
)
JSON_TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | ODD,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ODD, inner, max_size=4),
    max_leaves=10,
).map(json.dumps)
NO_JSON = st.sampled_from(["{", '{"a":1,"a":2}', "[NaN]", '"\\ud800"', "1e400", "[" * 300 + "]" * 300, "9" * 5000, " 1 "])
DATA = st.sampled_from(range(8)).flatmap(lambda number: {3: TEXT, 5: NO_JSON}.get(number, JSON_TEXTS))


@st.composite
def values(draw: st.DrawFn) -> CloudEvent.CloudEventAttributeValue:
    """Return an attribute's value of any kind."""
    value = CloudEvent.CloudEventAttributeValue()
    match draw(st.sampled_from(["uri", "bytes", "integer", "boolean", "timestamp", "none"])):
        case "uri":
            value.ce_uri = draw(TEXT)
        case "bytes":
            value.ce_bytes = draw(st.binary(max_size=20))
        case "integer":
            value.ce_integer = draw(st.integers(-(2**31), 2**31 - 1))
        case "boolean":
            value.ce_boolean = draw(st.booleans())
        case "timestamp":
            value.ce_timestamp.seconds = draw(st.integers(-(2**40), 2**40))
            value.ce_timestamp.nanos = draw(st.sampled_from([0, 999_999_999, -1]))
    return value


@st.composite
def events(draw: st.DrawFn) -> CloudEvent:
    """Return an event most of whose parts are valid."""
    event = CloudEvent(id=draw(TEXT), spec_version="1.0")
    event.source, event.type = draw(TEXT), draw(TEXT)
    for name in draw(st.lists(NAMES, max_size=3)):
        if draw(st.booleans()):
            event.attributes[name].ce_string = draw(CONTENT_TYPES) if name == "datacontenttype" else draw(TEXT)
        else:
            event.attributes[name].CopyFrom(draw(values()))
    match draw(st.sampled_from(["text", "text", "bytes", "proto", "none"])):
        case "text":
            event.text_data = draw(DATA)
        case "bytes":
            event.binary_data = draw(DATA.map(str.encode) | st.binary(max_size=40))
        case "proto":
            event.proto_data.type_url = draw(TEXT)
            event.proto_data.value = draw(st.binary(max_size=20))
    return event


def judged(event: CloudEvent) -> NewEvent | EventRefusal:
    """Return the result of the validation of an event: the event or its refusal."""
    try:
        return validate_event(event, bytes_max=_BYTES_MAX)
    except EventRefusal as refusal:
        return refusal


def strictly(raw: bytes) -> Any:
    """Parse JSON, and fail on a duplicate name or NaN."""

    def refuse(name: str) -> Any:
        raise AssertionError(name)

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len({name for name, _ in pairs}) == len(pairs), pairs
        return dict(pairs)

    return json.loads(raw.decode(), object_pairs_hook=members, parse_constant=refuse)


@pytest_asyncio.fixture(scope="module")
async def log(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SqliteEventLog]:
    path = tmp_path_factory.mktemp("log") / "ingest.db"
    async with open_sqlite_log(path, SystemClock(), bytes_max=1 << 40, retention_s=3600, failed=lambda _error: None) as running:
        yield running


@given(event=events())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_is_accepted_arrives_as_valid_json_with_all_its_parts(log: SqliteEventLog, event: CloudEvent) -> None:
    if event.id:
        event.id = f"{next(_numbers)}{event.id}"  # a new event in this log
    new = judged(event)
    if isinstance(new, EventRefusal):
        assert 0 < len(new.message) < 400
        return
    (appended,) = await log.append([new])
    assert isinstance(appended, Appended)
    (record,) = await log.fetch([ShardPosition(0, appended.position)])
    body = structured(record.event)
    value = strictly(body)
    assert (value["specversion"], value["id"], value["source"], value["type"]) == ("1.0", event.id, event.source, event.type)
    implied = {"datacontenttype", "dataschema"} if event.WhichOneof("data") == "proto_data" else set()
    assert value.keys() - {"data", "data_base64"} - implied == {"specversion", "id", "source", "type", *event.attributes} - implied
    match event.WhichOneof("data"):
        case "text_data":
            assert value["data"] == event.text_data or value["data"] == strictly(event.text_data.encode())
        case "binary_data":
            assert base64.b64decode(value.get("data_base64", "")) == event.binary_data or value["data"] == strictly(event.binary_data)
        case "proto_data":
            assert base64.b64decode(value["data_base64"]) == event.proto_data.value
        case None:
            assert not {"data", "data_base64"} & value.keys()
    # Every attempt has the same bytes, and the API shows the same event.
    assert structured(record.event) == body
    assert strictly(orjson.dumps(event_json(CloudEvent.FromString(record.event)))) == value


@given(raw=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_no_event_or_refused_or_accepted(raw: bytes) -> None:
    try:
        event = CloudEvent.FromString(raw)
    except DecodeError:
        with pytest.raises(ValueError, match="the record is not a CloudEvent"):
            structured(raw)
        return
    new = judged(event)
    assert isinstance(new, NewEvent) or new.message


@given(event=events(), place=st.integers(0, 400), byte=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_an_event_with_a_byte_gone_wrong_is_no_event_or_judged_as_any_other(event: CloudEvent, place: int, byte: int) -> None:
    raw = bytearray(event.SerializeToString())
    raw[place % len(raw)] = byte
    try:
        new = judged(CloudEvent.FromString(bytes(raw)))
    except DecodeError:
        return
    if isinstance(new, NewEvent):
        strictly(structured(new.event))
