"""CloudEvent JSON: writes a CloudEvent of the contract in the JSON format of CloudEvents 1.0.

Law: JSON data is passed on byte for byte, so that no number loses a digit.
"""

import base64

import orjson
from hooktide.event.v1 import event_pb2

from services.runtime.content_type import is_json


def event_json(event: event_pb2.CloudEvent) -> dict[str, object]:
    """Return the event: with `data` for JSON and text, with `data_base64` for other bytes, and with neither if there is no data.

    Webhooks carry the same form.
    """
    attributes = {name: _attribute(value) for name, value in sorted(event.attributes.items())}
    if event.WhichOneof("data") == "proto_data":
        attributes.setdefault("datacontenttype", "application/protobuf")
        if event.proto_data.type_url:
            attributes.setdefault("dataschema", event.proto_data.type_url)
    own = {"specversion": event.spec_version, "id": event.id, "source": event.source, "type": event.type}
    return {**attributes, **own, **_data(event)}


def _attribute(value: event_pb2.CloudEvent.CloudEventAttributeValue) -> object:
    kind = value.WhichOneof("attr")
    if kind is None:
        return ""
    if kind == "ce_timestamp":
        return value.ce_timestamp.ToJsonString()
    content: bool | int | str | bytes = getattr(value, kind)
    return base64.b64encode(content).decode() if isinstance(content, bytes) else content


def _data(event: event_pb2.CloudEvent) -> dict[str, object]:
    content_type = event.attributes["datacontenttype"].ce_string if "datacontenttype" in event.attributes else ""
    match event.WhichOneof("data"):
        case "text_data":
            return {"data": _inline(event.text_data.encode()) if is_json(content_type) else event.text_data}
        case "binary_data" if content_type and is_json(content_type):
            return {"data": _inline(event.binary_data)}
        case "binary_data":
            return {"data_base64": base64.b64encode(event.binary_data).decode()}
        case "proto_data":
            return {"data_base64": base64.b64encode(event.proto_data.value).decode()}
        case _:
            return {}


def _inline(raw: bytes) -> object:
    """Return JSON as it is; return bytes that are not JSON as text."""
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.decode(errors="replace")
    return orjson.Fragment(raw)
