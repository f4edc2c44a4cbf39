"""Problems: a failure as a problem (RFC 9457), with the status that the contract documents.

service → peers → [problems] → answers → client

Law 1: pure.
Law 2: whatever goes wrong, the client reads this one shape.
Law 3: a `FieldError` here names a *place* of the request: a JSON pointer (``/sink``; empty: the whole body),
a query or path parameter (``?limit``) or a header (``If-Match:``). Services name fields of the contract; `in_places`
turns those into places.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.strict_json import pointer_token
from gateway.translate.names import HEADERS_FIELD, HEADERS_PLACE, PLACES
from services.runtime.errors import Failure, FieldError, Reason

RETRY_AFTER_DEFAULT_S = 1.0
PROBLEMS_MAX = 20


@dataclass(frozen=True, slots=True)
class _Kind:
    status: int
    title: str


_KINDS: dict[Reason, _Kind] = {
    Reason.INTERNAL: _Kind(500, "Internal fault"),
    Reason.UNAVAILABLE: _Kind(503, "Unavailable"),
    Reason.DEADLINE_EXCEEDED: _Kind(504, "Deadline exceeded"),
    Reason.ROUTE_NOT_FOUND: _Kind(404, "No such route"),
    Reason.METHOD_NOT_ALLOWED: _Kind(405, "Method not allowed"),
    Reason.INVALID_ARGUMENT: _Kind(400, "Invalid request"),
    Reason.MALFORMED_BODY: _Kind(400, "Malformed body"),
    Reason.UNSUPPORTED_MEDIA_TYPE: _Kind(415, "Unsupported media type"),
    Reason.REQUEST_TOO_LARGE: _Kind(413, "Request too large"),
    Reason.KEY_REQUIRED: _Kind(401, "API key required"),
    Reason.KEY_INVALID: _Kind(401, "API key invalid"),
    Reason.ROLE_FORBIDDEN: _Kind(403, "Not permitted for this role"),
    Reason.SUBSCRIPTION_NOT_FOUND: _Kind(404, "No such subscription"),
    Reason.EVENT_TYPE_NOT_FOUND: _Kind(404, "No such event type"),
    Reason.CONSUMER_NOT_FOUND: _Kind(404, "No such consumer"),
    Reason.KEY_NOT_FOUND: _Kind(404, "No such API key"),
    Reason.EVENT_NOT_FOUND: _Kind(404, "No such event"),
    Reason.DELIVERY_NOT_FOUND: _Kind(404, "No such delivery"),
    Reason.ETAG_MISMATCH: _Kind(412, "Changed in the meantime"),
    Reason.IDEMPOTENCY_KEY_REUSED: _Kind(422, "Idempotency key reused"),
    Reason.PAGE_TOKEN_INVALID: _Kind(400, "Invalid cursor"),
    Reason.SINK_FORBIDDEN: _Kind(400, "Sink not permitted"),
    Reason.EVENT_ID_CONFLICT: _Kind(409, "Event id taken"),
    Reason.EVENT_TOO_LARGE: _Kind(413, "Event too large"),
    Reason.BATCH_TOO_LARGE: _Kind(413, "Batch too large"),
    Reason.AUDIENCE_REQUIRED: _Kind(400, "Audience required"),
    Reason.LOG_FULL: _Kind(503, "Event log full"),
    Reason.STORAGE_FULL: _Kind(503, "Storage full"),
    Reason.OVERLOADED: _Kind(429, "Overloaded"),
    Reason.ALREADY_EXISTS: _Kind(409, "Already exists"),
    Reason.STATE_CONFLICT: _Kind(409, "Not in this state"),
    Reason.VERIFICATION_NOT_FOUND: _Kind(404, "No such handshake"),
    Reason.LOOP_DETECTED: _Kind(508, "Loop detected"),
}
_WAITING_HELPS = frozenset({429, 503})

_RESOURCE = re.compile(r"(?:subscription|key|consumer|event_type)\.(?=.)")
_INDEX = re.compile(r"\[(\d+)\]")
_LAST_INDEX = re.compile(r"(.*)\[(\d+)\]", re.DOTALL)
# Fields of the contract's requests that stand elsewhere in REST, or under another name.
_PLACES = {
    "page_size": "?limit",
    "page_token": "?cursor",
    "start_time": "?after",
    "end_time": "?before",
    "state": "?state",
    "subscription_id": "?subscription",
    "event_id": "?event",
    "event_type": "?type",
    "type": "?type",
    "source": "?source",
    "id": "?id",
    "name": "?name",
    "request_id": "Idempotency-Key:",
    "etag": "If-Match:",
    "overlap": "/overlap_seconds",
    "scheme": "/signature",
    "token": "?token",
    "rate_per_minute": "WebHook-Allowed-Rate:",
    "key.expire_time": "/expires_at",
    **PLACES,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem's status, the headers that belong to it, and the members of its JSON object."""

    status: int
    headers: Mapping[str, str]
    members: Mapping[str, object]


class Refusal(Failure):
    """A failure of the gateway's own that adds headers to its answer."""

    def __init__(self, reason: Reason, message: str, *, headers: Mapping[str, str], fields: Sequence[FieldError] = ()) -> None:
        super().__init__(reason, message, fields=fields)
        self.headers = dict(headers)


def invalid(problems: Sequence[FieldError]) -> Failure:
    """Return the failure for one or more wrong places; the first of many are enough to go on with."""
    shown = problems[:PROBLEMS_MAX]
    return Failure(Reason.INVALID_ARGUMENT, _sentence(shown), fields=shown)


def in_places(failure: Failure) -> Failure:
    """Return a service's failure in the words of REST: places for fields, and no name of the contract in the text."""
    match failure.reason:
        case Reason.PAGE_TOKEN_INVALID:
            problem = FieldError("?cursor", "is not one that this list gave out; leave it out to begin at the first page")
            return Failure(failure.reason, _sentence([problem]), fields=[problem])
        case Reason.IDEMPOTENCY_KEY_REUSED:
            problem = FieldError("Idempotency-Key:", "was used with another request in the last 24 hours; use a new one")
            return Failure(failure.reason, _sentence([problem]), fields=[problem])
        case reason:
            fields = [FieldError(place_of(error.field), error.description) for error in failure.fields]
            message = _sentence(fields) if fields else failure.message
            return Failure(reason, message, fields=fields, retry_after_s=failure.retry_after_s)


def place_of(path: str) -> str:
    """Return the place of a field of the contract: ``subscription.types[3]`` is ``/types/3``."""
    if path in _PLACES:
        return _PLACES[path]
    if path.startswith(HEADERS_FIELD):
        return HEADERS_PLACE + pointer_token(path.removeprefix(HEADERS_FIELD))
    last = _LAST_INDEX.fullmatch(path)
    if last is not None and last[1] in _PLACES:
        return f"{_PLACES[last[1]]}/{last[2]}"
    if path.partition(".")[0] == "update_mask":
        return ""
    inner = _RESOURCE.sub("", path, count=1)
    return "/" + _INDEX.sub(r"/\1", inner).replace(".", "/")


def problem_of(failure: Failure, request_id: str) -> Problem:
    """Return what a client is told of a failure.

    Reasons that only services may tell each other are a fault of the system to a client.
    """
    kind = _KINDS.get(failure.reason)
    if kind is None:
        return problem_of(internal(), request_id)
    members = {
        "type": "/docs/errors/" + failure.reason.name.lower().replace("_", "-"),
        "title": kind.title,
        "status": kind.status,
        "detail": failure.message,
        "reason": failure.reason.name,
        "errors": [_error_json(error) for error in failure.fields],
        "request_id": request_id,
    }
    return Problem(kind.status, _headers(failure, kind.status), members)


def internal() -> Failure:
    """Return what a client is told of a fault of our own: nothing but that it is one."""
    return Failure(Reason.INTERNAL, "The request met a fault of the system; its logs, under this request id, say which.")


def _headers(failure: Failure, status: int) -> dict[str, str]:
    headers = dict(failure.headers) if isinstance(failure, Refusal) else {}
    if status in _WAITING_HELPS:
        wait_s = RETRY_AFTER_DEFAULT_S if failure.retry_after_s is None else failure.retry_after_s
        headers["retry-after"] = str(max(1, math.ceil(wait_s)))
    if failure.reason is Reason.KEY_REQUIRED:
        headers["www-authenticate"] = "Bearer"
    if failure.reason is Reason.KEY_INVALID:
        headers["www-authenticate"] = 'Bearer error="invalid_token"'
    return headers


def _error_json(error: FieldError) -> dict[str, str]:
    place = error.field
    if place.startswith("?"):
        return {"parameter": place[1:], "detail": error.description}
    if place.endswith(":"):
        return {"header": place[:-1], "detail": error.description}
    return {"pointer": place, "detail": error.description}


def _sentence(problems: Sequence[FieldError]) -> str:
    return "; ".join(f"{error.field.strip('?:')}: {error.description}".removeprefix(": ") for error in problems)
