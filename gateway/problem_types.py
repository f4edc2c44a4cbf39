"""Problem types: the HTTP status, the title and the meaning of each reason.

[problem_types] → problems → responses → client
              └→ routes.problem_docs

Law: a reason that is missing here is for services only; to a client it appears as an internal fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from services.runtime.errors import Reason

PROBLEM_DOCS_PATH = "/docs/errors"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A problem type: HTTP status, title, and what it means and asks of the client, in a sentence or two."""

    status: int
    title: str
    meaning: str

    @property
    def waiting_helps(self) -> bool:
        """Whether the answer carries `Retry-After`."""
        return self.status in {429, 503}


PROBLEM_TYPES: Mapping[Reason, ProblemType] = {
    Reason.INTERNAL: ProblemType(500, "Internal error", "An internal error occurred. The operator finds it in the logs by the request id."),
    Reason.UNAVAILABLE: ProblemType(
        503, "Unavailable", "A service or store that the request needs is unavailable. Send the request again after `Retry-After`."
    ),
    Reason.DEADLINE_EXCEEDED: ProblemType(
        504,
        "Deadline exceeded",
        "The request took too long, and its change may have been made. Send the request again with the same `Idempotency-Key`.",
    ),
    Reason.ROUTE_NOT_FOUND: ProblemType(404, "No such route", "The API has no such path. All paths of the API begin with /v1/."),
    Reason.METHOD_NOT_ALLOWED: ProblemType(
        405, "Method not allowed", "The path exists, but does not support this method. `Allow` lists the methods that it supports."
    ),
    Reason.INVALID_ARGUMENT: ProblemType(
        400, "Invalid request", "A part of the request is not valid. `errors` names each such part and what to change."
    ),
    Reason.MALFORMED_BODY: ProblemType(
        400, "Malformed body", "The body is not valid. Send one JSON object in UTF-8, without duplicate members, NaN or deep nesting."
    ),
    Reason.UNSUPPORTED_MEDIA_TYPE: ProblemType(
        415, "Unsupported media type", "The route does not accept the media type of the body. Send application/json."
    ),
    Reason.REQUEST_TOO_LARGE: ProblemType(413, "Request too large", "The request is larger than the limit. Send a smaller one."),
    Reason.KEY_REQUIRED: ProblemType(401, "API key required", "The request has no API key. Send one as `Authorization: Bearer hkt_…`."),
    Reason.KEY_INVALID: ProblemType(401, "API key invalid", "The API key is malformed, unknown, expired or revoked. Use a valid key."),
    Reason.ROLE_FORBIDDEN: ProblemType(
        403, "Not permitted for this role", "The API key is valid, but its role may not do this. `detail` names the roles that may."
    ),
    Reason.SUBSCRIPTION_NOT_FOUND: ProblemType(
        404, "No such subscription", "The subscription does not exist, or it belongs to another consumer."
    ),
    Reason.EVENT_TYPE_NOT_FOUND: ProblemType(
        404, "No such event type", "The catalogue has no event type of this name. GET /v1/event-types lists the event types."
    ),
    Reason.CONSUMER_NOT_FOUND: ProblemType(404, "No such consumer", "The consumer does not exist. POST /v1/consumers creates a consumer."),
    Reason.KEY_NOT_FOUND: ProblemType(
        404, "No such API key", "The API key does not exist, or it is revoked. GET /v1/keys lists the API keys."
    ),
    Reason.EVENT_NOT_FOUND: ProblemType(
        404, "No such event", "The event does not exist, is past its retention, or is not for this consumer."
    ),
    Reason.DELIVERY_NOT_FOUND: ProblemType(
        404, "No such delivery", "The delivery does not exist, is past its retention, or belongs to another consumer."
    ),
    Reason.ETAG_MISMATCH: ProblemType(
        412,
        "Changed in the meantime",
        "The resource has changed since the ETag in `If-Match` was read. Read the resource again, and decide whether the change "
        "still applies.",
    ),
    Reason.IDEMPOTENCY_KEY_REUSED: ProblemType(
        422,
        "Idempotency key reused",
        "This `Idempotency-Key` was used for a different request in the last 24 hours. Use a new key.",
    ),
    Reason.PAGE_TOKEN_INVALID: ProblemType(
        400,
        "Invalid cursor",
        "This list did not return this `cursor` for the same filters. Leave the cursor out to begin at the first page.",
    ),
    Reason.SINK_FORBIDDEN: ProblemType(
        400,
        "Sink not permitted",
        "Hooktide may not call this URL. By default, a sink must use https and have a public address. `errors` says what is wrong.",
    ),
    Reason.EVENT_ID_CONFLICT: ProblemType(
        409,
        "Event id already used",
        "An event with this `source` and `id` and different content was accepted before. Give each event its own id.",
    ),
    Reason.EVENT_TOO_LARGE: ProblemType(
        413, "Event too large", "The event is larger than the limit. Send a reference to the data instead."
    ),
    Reason.BATCH_TOO_LARGE: ProblemType(
        413, "Batch too large", "The message has more events or bytes than the limit. Send fewer events in one message."
    ),
    Reason.AUDIENCE_REQUIRED: ProblemType(
        400, "Audience required", "Events of this type must name the consumer that may receive them in `audience`."
    ),
    Reason.LOG_FULL: ProblemType(
        503, "Event log full", "The event log has reached its size limit. Send the event again after `Retry-After`."
    ),
    Reason.STORAGE_FULL: ProblemType(
        503, "Storage full", "A disk is full, and nothing was changed. Send the request again after `Retry-After`."
    ),
    Reason.OVERLOADED: ProblemType(429, "Overloaded", "Too many requests are under way. Send the request again after `Retry-After`."),
    Reason.ALREADY_EXISTS: ProblemType(
        409, "Already exists", "Something with this name or content exists already. Use another name or content."
    ),
    Reason.STATE_CONFLICT: ProblemType(409, "Not in this state", "The present state does not permit this request. `detail` says why."),
    Reason.VERIFICATION_NOT_FOUND: ProblemType(
        404,
        "No such verification",
        "No sink verification is under way at this address: the address is incomplete, too old, or of a former sink.",
    ),
    Reason.LOOP_DETECTED: ProblemType(
        508, "Loop detected", "The request is one of Hooktide's own webhooks. Use a sink that is not an address of this API."
    ),
}


def doc_path_of(reason: Reason) -> str:
    """Return the path of the page about a reason; it is the `type` of the reason's problems."""
    return f"{PROBLEM_DOCS_PATH}/{_name(reason)}"


def reason_of(name: str) -> Reason | None:
    """Return the reason whose page has this name, None if there is no such page."""
    return next((reason for reason in PROBLEM_TYPES if _name(reason) == name), None)


def _name(reason: Reason) -> str:
    return reason.name.lower().replace("_", "-")
