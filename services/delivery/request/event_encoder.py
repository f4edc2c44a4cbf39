"""Event encoder: encodes an event as the body of a webhook, with the headers that belong to the body.

log record → [event_encoder] → signing → transport

Law 1: pure. The same record always gives the same bytes, because every attempt must send the same body.
Law 2: the data is sent as the emitter wrote it, byte for byte.
Law 3: an encoder that has made a body stays as it is. To change what is sent, add an encoder with the next number to `ENCODERS`, and make
it the encoder of new deliveries (`model.ENCODER_VERSION`).
Rule: CloudEvents 1.0.2: the JSON format in structured mode, and binary mode. Data-only mode sends the data without CloudEvents.
`proto_data` is sent as the bytes of its message (`Any.value`). Its type URL becomes `dataschema`, and `application/protobuf`
becomes `datacontenttype`, unless the emitter set them.
"""

import base64
import re
from collections.abc import Callable

import orjson
from hooktide.event.v1 import event_pb2

from services.delivery.model import Content, ContentMode
from services.runtime.content_type import is_json

CONTENT_TYPE = "application/cloudevents+json"
_OCTETS = "application/octet-stream"
_PROTOBUF = "application/protobuf"
_CONTENT_TYPE_ATTRIBUTE = "datacontenttype"
_SCHEMA_ATTRIBUTE = "dataschema"
_DEFAULT_TYPES = {"text_data": "application/json", "binary_data": _OCTETS, "proto_data": _PROTOBUF}
# Characters that a header may contain unchanged; CloudEvents requires all others of an attribute to be percent-encoded.
_PLAIN = re.compile(r"[!#-$&-~]*")
_ENCODED = re.compile(r"[^!#-$&-~]")
_TRACE = {
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
    "tracestate": re.compile(r"[!-~](?:[ -~]{0,510}[!-~])?"),
}
_VISIBLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def content(raw: bytes, mode: ContentMode) -> Content:
    """Return the body and headers for a CloudEvent given as protobuf bytes.

    Raises `ValueError` for bytes that are no CloudEvent. Ingest has already checked that JSON data is valid JSON.
    """
    event = _parsed(raw)
    trace = _trace_headers(event)
    match mode:
        case ContentMode.STRUCTURED:
            trace["content-type"] = CONTENT_TYPE
            return Content(trace, _structured(event))
        case ContentMode.BINARY:
            return Content(trace | _attribute_headers(event) | _type_header(event), _data(event))
        case ContentMode.DATA_ONLY:
            return Content(trace | _type_header(event), _data(event))


Encoder = Callable[[bytes, ContentMode], Content]
"""Returns the body and headers for a CloudEvent given as protobuf bytes; raises `ValueError` for bytes that are no CloudEvent."""
ENCODERS: dict[int, Encoder] = {1: content}
"""Every encoder by its number, which the ledger stores with each unfinished delivery."""


def encoded(raw: bytes, mode: ContentMode, encoder: int) -> Content:
    """Return the body and headers that an encoder makes; raises `ValueError` if there is no such encoder, or as the encoder does."""
    encode = ENCODERS.get(encoder)
    if encode is None:
        message = (
            f"the delivery was written with encoder {encoder}, which this version does not have; run the version of the delivery service "
            "that wrote it"
        )
        raise ValueError(message)
    return encode(raw, mode)


def _structured(event: event_pb2.CloudEvent) -> bytes:
    body: dict[str, object] = {"specversion": event.spec_version, "id": event.id, "source": event.source, "type": event.type}
    attributes = event.attributes
    for name in sorted(attributes):
        value = attributes[name]
        body[name] = value.ce_string if value.WhichOneof("attr") == "ce_string" else _attribute(value)
    kind = event.WhichOneof("data")
    if kind == "text_data":
        body["data"] = orjson.Fragment(event.text_data) if is_json(str(body.get(_CONTENT_TYPE_ATTRIBUTE, ""))) else event.text_data
    elif kind == "binary_data":
        if _CONTENT_TYPE_ATTRIBUTE in body and is_json(str(body[_CONTENT_TYPE_ATTRIBUTE])):
            body["data"] = orjson.Fragment(event.binary_data)
        else:
            body["data_base64"] = base64.b64encode(event.binary_data).decode()
    elif kind == "proto_data":
        body.setdefault(_CONTENT_TYPE_ATTRIBUTE, _PROTOBUF)
        if event.proto_data.type_url:
            body.setdefault(_SCHEMA_ATTRIBUTE, event.proto_data.type_url)
        body["data_base64"] = base64.b64encode(event.proto_data.value).decode()
    return orjson.dumps(body)


def _parsed(raw: bytes) -> event_pb2.CloudEvent:
    try:
        return event_pb2.CloudEvent.FromString(raw)
    except Exception as error:
        message = "the record is not a CloudEvent"
        raise ValueError(message) from error


def _attribute_headers(event: event_pb2.CloudEvent) -> dict[str, str]:
    attributes = event.attributes
    headers = {f"ce-{name}": _header_value(_attribute(attributes[name])) for name in sorted(attributes) if name != _CONTENT_TYPE_ATTRIBUTE}
    if event.WhichOneof("data") == "proto_data" and event.proto_data.type_url:
        headers.setdefault(f"ce-{_SCHEMA_ATTRIBUTE}", _header_value(event.proto_data.type_url))
    own = {"ce-specversion": event.spec_version, "ce-id": event.id, "ce-source": event.source, "ce-type": event.type}
    return headers | {name: _header_value(value) for name, value in own.items()}


def _trace_headers(event: event_pb2.CloudEvent) -> dict[str, str]:
    """Return the event's trace (W3C Trace Context) as HTTP headers, without invalid values."""
    headers: dict[str, str] = {}
    # `tracestate` means nothing without `traceparent`.
    if "traceparent" not in event.attributes:
        return headers
    for name, form in _TRACE.items():
        value = event.attributes[name].ce_string if name in event.attributes else ""
        if form.fullmatch(value):
            headers[name] = value
    return headers if "traceparent" in headers else {}


def _header_value(value: str | int | bool) -> str:  # noqa: FBT001 - an attribute's value
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if _PLAIN.fullmatch(text):
        return text
    return _ENCODED.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text)


def _type_header(event: event_pb2.CloudEvent) -> dict[str, str]:
    """Return the content type: the emitter's, or the default for the event's kind of data; no header without data or type."""
    kind, said = event.WhichOneof("data"), ""
    if _CONTENT_TYPE_ATTRIBUTE in event.attributes:
        said = event.attributes[_CONTENT_TYPE_ATTRIBUTE].ce_string
    if said:
        return {"content-type": said if _VISIBLE.fullmatch(said) else _OCTETS}
    return {} if kind is None else {"content-type": _DEFAULT_TYPES[kind]}


def _data(event: event_pb2.CloudEvent) -> bytes:
    match event.WhichOneof("data"):
        case "text_data":
            return event.text_data.encode()
        case "binary_data":
            return event.binary_data
        case "proto_data":
            return event.proto_data.value
        case _:
            return b""


def _attribute(value: event_pb2.CloudEvent.CloudEventAttributeValue) -> str | int | bool:
    kind = value.WhichOneof("attr")
    if kind == "ce_timestamp":
        return value.ce_timestamp.ToJsonString()
    if kind == "ce_bytes":
        return base64.b64encode(value.ce_bytes).decode()
    if kind is None:
        return ""
    plain: str | int | bool = getattr(value, kind)
    return plain
