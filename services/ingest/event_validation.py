"""Event validation: decide whether one CloudEvent may enter the log, and in which form.

publish → [event_validation] → event log → router

Law 1: pure; the caller passes the limits.
Law 2: an accepted event can be delivered: its attributes fit into HTTP headers and JSON, and its JSON data is valid JSON.
Rules: CloudEvents 1.0.2, and RFC 8259 for JSON data. JSON with duplicate names, NaN or lone surrogates is refused,
because receivers disagree on them.
"""

import calendar
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

import orjson
from hooktide.event.v1 import event_pb2

from services.eventlog.placement import placement
from services.eventlog.record import NewEvent, partition_of
from services.runtime.content_type import is_json
from services.runtime.errors import Reason
from services.runtime.event_types import (
    EVENT_TYPE_BYTES_MAX,
    FORBIDDEN_CHARACTERS,
    RESERVED_PREFIX,
    RESERVED_SOURCE_PREFIX,
    is_reserved,
    reserved_source_problem,
    reserved_type_problem,
    star_problem,
)
from services.runtime.ids import is_id

CloudEvent: TypeAlias = event_pb2.CloudEvent
ID_BYTES_MAX = 256
SOURCE_BYTES_MAX = 1024
ATTRIBUTE_BYTES_MAX = 4096
ATTRIBUTES_MAX = 64
_NAME = re.compile(r"[a-z0-9]{1,64}")
_HOUR_AND_MINUTE = r"([01]\d|2[0-3]):[0-5]\d"
_TIME = re.compile(
    rf"(\d{{4}})-(\d\d)-(\d\d)[Tt]{_HOUR_AND_MINUTE}:([0-5]\d|60)(\.\d{{1,9}})?([Zz]|[+-]{_HOUR_AND_MINUTE})",
    re.ASCII,
)
_RESERVED = frozenset({"id", "source", "type", "specversion", "data", "database64"})
# Tracing adds these attributes anew on each try. The digest leaves them out, so that two tries are the same event.
_TRACE = frozenset({"traceparent", "tracestate"})
_MONTHS = 12
# A few names make up most of a stream.
_NAMES_MAX = 1024
_STRINGS_ONLY = frozenset({"audience", "partitionkey", "subject", "datacontenttype"})


@dataclass(frozen=True, slots=True)
class EventRefusal(Exception):  # noqa: N818 - a noun of the domain: the emitter's answer
    """Why an event is refused: what to change, and in which field."""

    reason: Reason
    message: str
    field: str = ""
    retry_after_s: float | None = None


def validate_event(event: CloudEvent, *, bytes_max: int, is_notice: bool = False) -> NewEvent:
    """Return the event in the form that the log appends; raise `EventRefusal` if the event may not enter.

    `is_notice`: the caller is a service of Hooktide, which publishes only types and sources that no emitter may use.
    """
    payload = event.SerializeToString()
    if len(payload) > bytes_max:
        raise EventRefusal(
            Reason.EVENT_TOO_LARGE,
            f"the event has {len(payload)} bytes, and the limit is {bytes_max}; send a `dataref` instead of the data",
        )
    if event.spec_version != "1.0":
        _refuse("spec_version", 'must be "1.0"')
    own_id, source, type_ = event.id, event.source, event.type
    _check_text("id", own_id, ID_BYTES_MAX)
    _check_text("source", source, SOURCE_BYTES_MAX)
    _check_text("type", type_, EVENT_TYPE_BYTES_MAX)
    if problem := star_problem(type_):
        _refuse("type", problem)
    attributes = _attributes(event)
    data_kind = "text_data" if event.text_data else event.WhichOneof("data")
    data = _data(event, data_kind, attributes.get("datacontenttype", ""))
    audience = attributes.get("audience", "")
    if is_notice:
        _check_notice(type_, source, audience)
    elif type_.startswith(RESERVED_PREFIX) or source.startswith(RESERVED_SOURCE_PREFIX):
        _refuse_reserved(type_, source)
    if audience and not is_id(audience, "con"):
        _refuse("attributes.audience", "must be a consumer's id: con_ and 32 hexadecimal digits")
    canonical = f"{own_id}\x00{source}\x00{type_}\x00{data_kind or ''}\x00"
    for name in sorted(attributes):
        if name not in _TRACE:
            canonical += f"{name}={attributes[name]}\x00"
    digest = hashlib.sha256(canonical.encode() + data).digest()
    place = placement(own_id, source, attributes.get("partitionkey"), attributes.get("subject"))
    return NewEvent(partition_of(place), source, own_id, type_, audience, digest, payload)


def _refuse_reserved(type_: str, source: str) -> NoReturn:
    if problem := reserved_type_problem(type_):
        _refuse("type", problem)
    _refuse("source", reserved_source_problem(source) or "")


def _check_notice(type_: str, source: str, audience: str) -> None:
    if not is_reserved(type_):
        _refuse("type", f"must begin with {RESERVED_PREFIX}: this method takes notices only")
    if not source.startswith(RESERVED_SOURCE_PREFIX):
        _refuse("source", f"must begin with {RESERVED_SOURCE_PREFIX}: this method takes notices only")
    if not audience:
        _refuse("attributes.audience", "is required: a notice is for one consumer")


def _check_text(field: str, text: str, bytes_max: int) -> None:
    if not text:
        _refuse(field, "is required")
    # `isprintable` quickly accepts nearly all texts; only the others need the regular expression.
    if (
        (not text.isprintable() and FORBIDDEN_CHARACTERS.search(text))
        or len(text) > bytes_max
        or (not text.isascii() and len(text.encode()) > bytes_max)
    ):
        if FORBIDDEN_CHARACTERS.search(text):
            _refuse(field, "has control characters or noncharacters; remove them")
        _refuse(field, f"is longer than {bytes_max} bytes; make it shorter")


def _attributes(event: CloudEvent) -> dict[str, str]:
    """Return the attributes as text for the digest; refuse attributes that CloudEvents does not permit."""
    attributes = event.attributes
    if len(attributes) > ATTRIBUTES_MAX:
        _refuse("attributes", f"must be at most {ATTRIBUTES_MAX} attributes; these are {len(attributes)}")
    texts = {}
    for name in attributes:
        value = attributes[name]
        if not _is_name(name):
            _refuse(
                f"attributes.{name[:64]!a}",
                "is not a valid attribute name: write 1 to 64 characters of a to z and 0 to 9, and not the name of a field",
            )
        # Nearly all attributes are plain strings.
        text = value.ce_string
        if text.isascii() and text.isprintable() and 0 < len(text) <= ATTRIBUTE_BYTES_MAX and name != "time":
            texts[name] = text
            continue
        kind = value.WhichOneof("attr")
        if kind is None:
            _refuse(f"attributes.{name}", "has no value; set one, or leave the attribute out")
        if kind == "ce_string":
            _check_text(f"attributes.{name}", text, ATTRIBUTE_BYTES_MAX)
            if name == "time" and not _is_time(text):
                _refuse("attributes.time", "must be a time as in RFC 3339, for example 2030-01-31T12:00:00Z")
            texts[name] = text
        else:
            texts[name] = _other_attribute(name, kind, value)
    return texts


@functools.lru_cache(_NAMES_MAX)
def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name not in _RESERVED


def _is_time(text: str) -> bool:
    match = _TIME.fullmatch(text)
    if match is None:
        return False
    year, month, day = (int(part) for part in match.groups()[:3])
    return 1 <= month <= _MONTHS and 1 <= day <= calendar.monthrange(year, month)[1]


def _other_attribute(name: str, kind: str, value: CloudEvent.CloudEventAttributeValue) -> str:
    """Return an attribute that is not a string. The text begins with a control character, which no string attribute has."""
    if name in _STRINGS_ONLY:
        _refuse(f"attributes.{name}", "must be a string")
    if name == "time" and kind != "ce_timestamp":
        _refuse("attributes.time", "must be a timestamp")
    if kind == "ce_timestamp":
        try:
            return f"\t{kind}:{value.ce_timestamp.ToJsonString()}"
        except ValueError:
            _refuse(f"attributes.{name}", "is not a time between the years 1 and 9999")
    content = getattr(value, kind)
    if isinstance(content, bytes):
        if len(content) > ATTRIBUTE_BYTES_MAX:
            _refuse(f"attributes.{name}", f"is longer than {ATTRIBUTE_BYTES_MAX} bytes; make it shorter")
        return f"\t{kind}:{content.hex()}"
    if isinstance(content, str):
        _check_text(f"attributes.{name}", content, ATTRIBUTE_BYTES_MAX)
    return f"\t{kind}:{content}"


def _data(event: CloudEvent, kind: str | None, content_type: str) -> bytes:
    """Return the bytes of the event's data; refuse malformed JSON."""
    if kind is None:
        return b""
    if kind == "proto_data":
        if content_type and is_json(content_type):
            _refuse("data", "is a protobuf message, but datacontenttype is JSON; write application/protobuf, or send the data as text_data")
        # Delivery sends the type URL as the attribute `dataschema`.
        if event.proto_data.type_url:
            _check_text("proto_data.type_url", event.proto_data.type_url, ATTRIBUTE_BYTES_MAX)
        return event.proto_data.SerializeToString(deterministic=True)
    data = event.text_data.encode() if kind == "text_data" else event.binary_data
    if is_json(content_type) and (kind == "text_data" or content_type):
        check_json(data)
    return data


def check_json(data: bytes) -> None:
    """Raise `EventRefusal` unless `data` is JSON that all receivers read alike."""
    try:
        written = orjson.dumps(orjson.loads(data))
    except orjson.JSONDecodeError as error:
        _refuse("data", f"is not valid JSON, although datacontenttype is JSON: {error}")
    except orjson.JSONEncodeError:  # orjson writes fewer levels than it reads; nothing else that it has read can fail here
        _refuse("data", "is nested too deeply; nest it less deeply")
    if written == data:
        return
    # A colon follows every name of an object; strings hold colons, too. Writing the parsed value drops a duplicate name with its
    # colon. It adds no colon, unless a \u escape hides one. So equal counts, without such escapes, prove that no name is duplicate.
    if (b"\\" in data and b"\\u" in data) or data.count(b":") != written.count(b":"):
        _refuse_duplicate_names(data)


def _refuse_duplicate_names(data: bytes) -> None:
    """Parse slowly, and refuse the first duplicate name, if there is one."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in items:
            if name in found:
                _refuse("data", f"has the name {name[:64]!a} twice in one object; keep one of them")
            found[name] = value
        return found

    json.loads(data, object_pairs_hook=pairs)


def _refuse(field: str, description: str) -> NoReturn:
    raise EventRefusal(Reason.INVALID_ARGUMENT, f"{field}: {description}", field)
