"""Events: turns the arguments of `emit` into the bytes of one CloudEvent within a message of the stream.

An event is serialised once, when it is emitted. A message is the concatenation of its events' frames. So its size is known exactly, and
sending an event again needs no new serialisation.
"""

import json
import time as clock
from collections.abc import Callable, Mapping
from datetime import date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from uuid import UUID

from google.protobuf.message import EncodeError

from hooktide._errors import InvalidEvent
from hooktide._ids import new_event_id
from hooktide.event.v1.event_pb2 import CloudEvent

# As the `default` of `json.dumps`: returns a value that JSON can express, or raises TypeError.
JsonDefault = Callable[[object], object]
Extension = str | bool | int | bytes | datetime

# A larger event fits into no message of the contract; the service's own limit is lower still.
FRAME_BYTES_MAX = 4 * 1024 * 1024 - 16

_JSON = "application/json"
_BINARY = "application/octet-stream"
_NS_PER_S = 1_000_000_000
_INT32_MAX = 2**31 - 1
_INT32_MIN = -(2**31)
_NAMED = frozenset({"id", "source", "type", "specversion", "subject", "time", "datacontenttype", "partitionkey", "audience"})
_EVENTS_TAG = b"\x0a"  # field 1 of PublishStreamRequest, of the wire type LEN


class JsonEncoder:
    """Writes values as JSON text.

    Beyond the types of JSON, it writes datetime, date and time as ISO 8601, and UUID and Decimal as text, so that a Decimal keeps its
    digits. For these and all other types it calls `default` first; if `default` raises TypeError, it applies the rule above.
    """

    def __init__(self, default: JsonDefault | None = None) -> None:
        self._default = default
        self.encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=self._replaced).encode

    def _replaced(self, value: object) -> object:
        """Return a replacement for a value that JSON cannot express; raises TypeError if there is no replacement."""
        refusal: TypeError | None = None
        if self._default is not None:
            try:
                return self._default(value)
            except TypeError as error:
                refusal = error
        match value:
            case datetime() | date() | time_of_day():
                return value.isoformat()
            case UUID() | Decimal():
                return str(value)
        message = f"a value of the type {type(value).__name__} cannot be converted to JSON"
        raise refusal or TypeError(message)


PLAIN_JSON = JsonEncoder()


def build_event(  # noqa: PLR0913 - the attributes of a CloudEvent
    *,
    type: str,  # noqa: A002 - CloudEvents' name
    source: str,
    subject: str | None,
    data: object,
    id: str | None,  # noqa: A002 - CloudEvents' name
    time: datetime | None,
    datacontenttype: str | None,
    partitionkey: str | None,
    audience: str | None,
    extensions: Mapping[str, Extension] | None,
    json_encoder: JsonEncoder = PLAIN_JSON,
) -> CloudEvent:
    """Return the event; raises `InvalidEvent` if the arguments cannot be expressed as an event. The service checks the rest."""
    try:
        event = CloudEvent(id=id or new_event_id(), source=source, spec_version="1.0", type=type)
        attributes = event.attributes
        stamp = attributes["time"].ce_timestamp
        if time is None:
            stamp.seconds, stamp.nanos = divmod(clock.time_ns(), _NS_PER_S)
        elif time.tzinfo is None:
            raise _invalid("time: the time has no time zone; write for example datetime.now(UTC)", field="attributes.time")
        else:
            stamp.FromDatetime(time)
        if subject is not None:
            attributes["subject"].ce_string = subject
        if partitionkey is not None:
            attributes["partitionkey"].ce_string = partitionkey
        if audience is not None:
            attributes["audience"].ce_string = audience
        if extensions:
            _set_extensions(event, extensions)
        if data is not None:
            datacontenttype = _set_data(event, data, datacontenttype, json_encoder)
        if datacontenttype is not None:
            attributes["datacontenttype"].ce_string = datacontenttype
    except (TypeError, ValueError, AttributeError) as error:
        # An argument has the wrong Python type, or is text that UTF-8 cannot encode.
        message = f"the event cannot be built: {error}"
        raise _invalid(message) from error
    return event


def _invalid(message: str, field: str | None = None) -> InvalidEvent:
    return InvalidEvent(message, reason="INVALID_ARGUMENT", field=field)


def _set_data(event: CloudEvent, data: object, datacontenttype: str | None, json_encoder: JsonEncoder) -> str:
    """Set the event's data and return its content type."""
    if isinstance(data, bytes | bytearray | memoryview):
        event.binary_data = bytes(data)
        return datacontenttype or _BINARY
    if datacontenttype is None or _is_json(datacontenttype):
        try:
            event.text_data = json_encoder.encode(data)
        except (TypeError, ValueError, RecursionError) as error:
            message = f"data: cannot be converted to JSON ({error}); pass plain values or bytes, or give the emitter a function `default`"
            raise _invalid(message, field="data") from error
        return datacontenttype or _JSON
    if isinstance(data, str):
        event.text_data = data
        return datacontenttype
    message = f"data: {data.__class__.__name__} cannot be sent as {datacontenttype}; pass str or bytes"
    raise _invalid(message, field="data")


def _is_json(datacontenttype: str) -> bool:
    media_type = datacontenttype.partition(";")[0].strip().lower()
    return media_type in {_JSON, "text/json"} or media_type.endswith("+json")


def _set_extensions(event: CloudEvent, extensions: Mapping[str, Extension]) -> None:
    for name, value in extensions.items():
        if name in _NAMED:
            message = f"extensions: pass {name} as the parameter of this name, not as an extension"
            raise _invalid(message, field=f"attributes.{name}")
        attribute = event.attributes[name]
        match value:
            case bool():
                attribute.ce_boolean = value
            case int() if _INT32_MIN <= value <= _INT32_MAX:
                attribute.ce_integer = value
            case str() if name == "dataschema":
                attribute.ce_uri = value
            case str():
                attribute.ce_string = value
            case bytes():
                attribute.ce_bytes = value
            case datetime() if value.tzinfo is not None:
                attribute.ce_timestamp.FromDatetime(value)
            case _:
                message = (
                    f"extensions: {name}={value!r} is not a valid attribute value; pass str, bool, a 32-bit int, bytes, or a "
                    "datetime with a time zone"
                )
                raise _invalid(message, field=f"attributes.{name}")


def frame_of(event: CloudEvent) -> bytes:
    """Return the event in the form that it has within a PublishStreamRequest: tag, length, bytes.

    Raises `InvalidEvent` if the event is too large for any message, or cannot be serialised.
    """
    try:
        body = event.SerializeToString()
    except (EncodeError, ValueError) as error:
        message = f"the event cannot be serialised: {error}"
        raise _invalid(message) from error
    if len(body) > FRAME_BYTES_MAX:
        message = f"the event has {len(body)} bytes, which is more than one message may have; send a reference to the data instead"
        raise InvalidEvent(message, reason="EVENT_TOO_LARGE")
    return _EVENTS_TAG + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    """Return a whole number as a protobuf varint: seven bits a byte, the lowest bits first."""
    if value < 1 << 7:
        return bytes((value,))
    if value < 1 << 14:
        return bytes((value & 0x7F | 0x80, value >> 7))
    return bytes((value & 0x7F | 0x80,)) + _varint(value >> 7)
