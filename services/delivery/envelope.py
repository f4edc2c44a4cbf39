"""Envelope: an event as the body of a webhook.

log record → [envelope] → signing → transport

Law 1: pure, and the same record always gives the same bytes: a repeated attempt must not differ.
Law 2: JSON data is passed on as the emitter wrote it, byte for byte.
Rule: CloudEvents 1.0.2, JSON format, structured mode.
"""

import base64
import re

import orjson
from hooktide.event.v1 import event_pb2

CONTENT_TYPE = "application/cloudevents+json"
_JSON_TYPE = re.compile(r"(?:[\w.+-]+/(?:[\w.-]+\+)?json)\s*(?:;.*)?", re.IGNORECASE)


def structured(raw: bytes) -> bytes:
    """Return the structured JSON body of a CloudEvent given as protobuf bytes.

    Raises `ValueError` for bytes that are no CloudEvent. That JSON data is JSON, acceptance has proven.
    """
    try:
        event = event_pb2.CloudEvent.FromString(raw)
    except Exception as error:
        message = "the record is no CloudEvent"
        raise ValueError(message) from error
    body: dict[str, object] = {"specversion": event.spec_version, "id": event.id, "source": event.source, "type": event.type}
    attributes = event.attributes
    for name in sorted(attributes):
        body[name] = _attribute(attributes[name])
    kind = event.WhichOneof("data")
    if kind == "text_data":
        body["data"] = _json(event.text_data.encode()) if _is_json(body) else event.text_data
    elif kind == "binary_data":
        if "datacontenttype" in body and _is_json(body):
            body["data"] = _json(event.binary_data)
        else:
            body["data_base64"] = base64.b64encode(event.binary_data).decode()
    elif kind == "proto_data":
        body["data_base64"] = base64.b64encode(event.proto_data.SerializeToString(deterministic=True)).decode()
    return orjson.dumps(body)


def _is_json(body: dict[str, object]) -> bool:
    content_type = str(body.get("datacontenttype", ""))
    return content_type in {"", "application/json"} or _JSON_TYPE.fullmatch(content_type) is not None


def _json(data: bytes) -> orjson.Fragment:
    return orjson.Fragment(data)


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
