"""Events: the one builder of CloudEvents for all tests."""

from itertools import count

from google.protobuf.any_pb2 import Any as AnyMessage
from hooktide.event.v1.event_pb2 import CloudEvent

Value = CloudEvent.CloudEventAttributeValue
DATA = '{"id":  7}'
"""The data of an event whose test needs no other: JSON whose two spaces show whether its bytes pass unchanged."""
_numbers = count(1)


def cloud_event(
    own_id: str = "",
    type_: str = "order.created",
    data: str | bytes | AnyMessage | None = DATA,
    *,
    source: str = "/shop",
    **attributes: str | Value,
) -> CloudEvent:
    """Return an event; without an id it gets a new one, with `data` None it has no data."""
    made = CloudEvent(id=own_id or f"event-{next(_numbers)}", source=source, spec_version="1.0", type=type_)
    match data:
        case str():
            made.text_data = data
        case bytes():
            made.binary_data = data
        case AnyMessage():
            made.proto_data.CopyFrom(data)
    for name, value in attributes.items():
        made.attributes[name].CopyFrom(Value(ce_string=value) if isinstance(value, str) else value)
    return made


def event_of_size(size_bytes: int, own_id: str = "", type_: str = "order.created", **attributes: str) -> CloudEvent:
    """Return an event of exactly that many bytes on the wire, with plain text as its data."""
    event = cloud_event(own_id, type_, "", datacontenttype="text/plain", **attributes)
    # The length of the text is encoded as well, in a number of bytes that depends on it.
    while (missing := size_bytes - event.ByteSize()) > 0:
        event.text_data += "x" * max(1, missing - 3)
    assert event.ByteSize() == size_bytes
    return event
