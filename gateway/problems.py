"""Problems: turns a failure into a problem (RFC 9457), with the status that the contract documents.

service → upstreams → [problems] → responses → client

Law 1: pure.
Law 2: whatever goes wrong, the client reads this one shape.
Law 3: a `FieldError` here names a *place* in the request: a JSON pointer (``/sink``; empty: the whole body), a query or path parameter
(``?limit``) or a header (``If-Match:``). Services name fields of the contract; `in_rest_terms` turns fields into places.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.member_names import HEADERS_FIELD, HEADERS_PLACE, PLACES
from gateway.problem_types import PROBLEM_TYPES, ProblemType, doc_path_of
from gateway.strict_json import pointer_token
from services.runtime.errors import Failure, FieldError, Reason

RETRY_AFTER_DEFAULT_S = 1.0
PROBLEMS_MAX = 20


_RESOURCE = re.compile(r"(?:subscription|key|consumer|event_type)\.(?=.)")
_INDEX = re.compile(r"\[(\d+)\]")
_LAST_INDEX = re.compile(r"(.*)\[(\d+)\]", re.DOTALL)
# Fields of the contract's requests that have another place or another name in REST.
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
    """A problem's status, its headers, and the members of its JSON object."""

    status: int
    headers: Mapping[str, str]
    members: Mapping[str, object]


class FailureWithHeaders(Failure):
    """A failure of the gateway's own that adds headers to its answer."""

    def __init__(self, reason: Reason, message: str, *, headers: Mapping[str, str], fields: Sequence[FieldError] = ()) -> None:
        super().__init__(reason, message, fields=fields)
        self.headers = dict(headers)


def invalid_request(problems: Sequence[FieldError]) -> Failure:
    """Return the failure for one or more wrong places; only the first `PROBLEMS_MAX` are shown."""
    shown = problems[:PROBLEMS_MAX]
    return Failure(Reason.INVALID_ARGUMENT, _sentence(shown), fields=shown)


def in_rest_terms(failure: Failure) -> Failure:
    """Return a service's failure in terms of REST: with places instead of fields, and without the contract's names in the text."""
    match failure.reason:
        case Reason.PAGE_TOKEN_INVALID:
            problem = FieldError("?cursor", "was not returned by this list; leave it out to begin at the first page")
            return Failure(failure.reason, _sentence([problem]), fields=[problem])
        case Reason.IDEMPOTENCY_KEY_REUSED:
            problem = FieldError("Idempotency-Key:", "was used for a different request in the last 24 hours; use a new key")
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
    """Return the problem that a client gets for a failure.

    A reason that is for services only becomes an internal fault.
    """
    problem_type = PROBLEM_TYPES.get(failure.reason)
    if problem_type is None:
        return problem_of(internal_fault(), request_id)
    members = {
        "type": doc_path_of(failure.reason),
        "title": problem_type.title,
        "status": problem_type.status,
        "detail": failure.message,
        "reason": failure.reason.name,
        "errors": [_error_json(error) for error in failure.fields],
        "request_id": request_id,
    }
    return Problem(problem_type.status, _headers(failure, problem_type), members)


def internal_fault() -> Failure:
    """Return the failure for a fault of our own; it reveals nothing about the fault."""
    return Failure(Reason.INTERNAL, "An internal error occurred; the operator finds it in the logs by this request id.")


def _headers(failure: Failure, problem_type: ProblemType) -> dict[str, str]:
    headers = dict(failure.headers) if isinstance(failure, FailureWithHeaders) else {}
    if problem_type.waiting_helps:
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
