"""CloudEvent: reads a webhook's event by the HTTP protocol binding of CloudEvents 1.0.2.

webhook_receiver → [cloudevent] → receive

It is written independently of the code that sends, so that each tests the other.

Law: pure. Every request has a result, since anybody who reaches the receiver may send anything.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

Mode = Literal["structured", "binary", "data_only"]
_STRUCTURED = "application/cloudevents+json"
_JSON = re.compile(r"[^/;\s]+/(?:[^;\s]*\+)?json\s*(?:;.*)?", re.IGNORECASE)
_TEXT = re.compile(r"(?:text/[^;\s]+|[^/;\s]+/(?:[^;\s]*\+)?xml)\s*(?:;.*)?", re.IGNORECASE)
_PREFIX = "ce-"


@dataclass(frozen=True, slots=True)
class Received:
    """The content mode of a request, and its event as in CloudEvents' JSON format.

    In the mode `data_only` there is no event: the members are `data` or `data_base64`, and `datacontenttype`.
    """

    mode: Mode
    event: Mapping[str, object]


def read(headers: Mapping[str, str], body: bytes) -> Received:
    """Return the event of a request; the names in `headers` are in lower case."""
    content_type = headers.get("content-type", "")
    if content_type.lower().startswith(_STRUCTURED):
        event = _json(body)
        return Received("structured", event if isinstance(event, dict) else {})
    members: dict[str, object] = {"datacontenttype": content_type} if content_type else {}
    if f"{_PREFIX}specversion" not in headers:
        return Received("data_only", members | _data(content_type, body))
    attributes = {name.removeprefix(_PREFIX): unquote(value) for name, value in headers.items() if name.startswith(_PREFIX)}
    return Received("binary", attributes | members | _data(content_type, body))


def _data(content_type: str, body: bytes) -> dict[str, object]:
    if not body:
        return {}
    if _JSON.fullmatch(content_type) and (value := _json(body)) is not _NO_JSON:
        return {"data": value}
    if _TEXT.fullmatch(content_type):
        return {"data": body.decode(errors="replace")}
    return {"data_base64": base64.b64encode(body).decode()}


_NO_JSON = object()


def _json(body: bytes) -> object:
    """Return the value of JSON; `_NO_JSON` if the body is not JSON."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return _NO_JSON
    return value
