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
    Reason.INTERNAL: ProblemType(
        500, "Internal fault", "Hooktide met a fault of its own; its operator finds it in the logs by the request id."
    ),
    Reason.UNAVAILABLE: ProblemType(503, "Unavailable", "A service or store that the request needs is away. Send it again after a while."),
    Reason.DEADLINE_EXCEEDED: ProblemType(
        504, "Deadline exceeded", "The request took too long and may have been done all the same. Send it again, with its Idempotency-Key."
    ),
    Reason.ROUTE_NOT_FOUND: ProblemType(404, "No such route", "The path leads nowhere. All paths of the API begin with /v1/."),
    Reason.METHOD_NOT_ALLOWED: ProblemType(
        405, "Method not allowed", "The path is right, the method is not. `Allow` names those there are."
    ),
    Reason.INVALID_ARGUMENT: ProblemType(400, "Invalid request", "Something is wrong. `errors` names each place and what to change."),
    Reason.MALFORMED_BODY: ProblemType(
        400, "Malformed body", "The body is not the JSON that it should be: one object, in UTF-8, no member twice, no NaN, no deep nesting."
    ),
    Reason.UNSUPPORTED_MEDIA_TYPE: ProblemType(
        415, "Unsupported media type", "The body comes as something that the route does not take. Send application/json."
    ),
    Reason.REQUEST_TOO_LARGE: ProblemType(413, "Request too large", "The request is larger than the limit. Send less at once."),
    Reason.KEY_REQUIRED: ProblemType(401, "API key required", "The request has no API key. Send one as `Authorization: Bearer hkt_…`."),
    Reason.KEY_INVALID: ProblemType(401, "API key invalid", "The API key is malformed, unknown, expired or revoked. Use another one."),
    Reason.ROLE_FORBIDDEN: ProblemType(
        403, "Not permitted for this role", "The API key is good, but keys of its role may not do this. `detail` names the roles that may."
    ),
    Reason.SUBSCRIPTION_NOT_FOUND: ProblemType(404, "No such subscription", "There is no such subscription, or it is another consumer's."),
    Reason.EVENT_TYPE_NOT_FOUND: ProblemType(
        404, "No such event type", "The catalogue has none of that name. GET /v1/event-types lists it."
    ),
    Reason.CONSUMER_NOT_FOUND: ProblemType(404, "No such consumer", "There is no such consumer. POST /v1/consumers makes one."),
    Reason.KEY_NOT_FOUND: ProblemType(
        404, "No such API key", "There is no such API key, or it is revoked. GET /v1/keys lists those there are."
    ),
    Reason.EVENT_NOT_FOUND: ProblemType(404, "No such event", "It is unknown, past its retention, or not for this consumer."),
    Reason.DELIVERY_NOT_FOUND: ProblemType(404, "No such delivery", "It is unknown, past its retention, or another consumer's."),
    Reason.ETAG_MISMATCH: ProblemType(
        412,
        "Changed in the meantime",
        "It is no longer as it was when the ETag in `If-Match` was read. Read it again and decide anew.",
    ),
    Reason.IDEMPOTENCY_KEY_REUSED: ProblemType(
        422,
        "Idempotency key reused",
        "This `Idempotency-Key` came with another request in the last 24 hours. Use a new one.",
    ),
    Reason.PAGE_TOKEN_INVALID: ProblemType(
        400, "Invalid cursor", "`cursor` is not one that this list gave out with the same filters. Leave it out to begin at the first page."
    ),
    Reason.SINK_FORBIDDEN: ProblemType(
        400,
        "Sink not permitted",
        "The sink is no URL that may be called: by default https to a public address. `errors` says why.",
    ),
    Reason.EVENT_ID_CONFLICT: ProblemType(
        409,
        "Event id taken",
        "An event of this `source` and `id` with other content was accepted before. Give each its own id.",
    ),
    Reason.EVENT_TOO_LARGE: ProblemType(
        413, "Event too large", "The event is larger than the limit. Send a reference to the data instead."
    ),
    Reason.BATCH_TOO_LARGE: ProblemType(413, "Batch too large", "More events or bytes in one message than the limit. Send less at once."),
    Reason.AUDIENCE_REQUIRED: ProblemType(400, "Audience required", "Events of this type must name, as `audience`, whom they are for."),
    Reason.LOG_FULL: ProblemType(503, "Event log full", "The event log has reached its size limit. Send the event again after a while."),
    Reason.STORAGE_FULL: ProblemType(503, "Storage full", "A disk is full; nothing was changed. Send the request again after a while."),
    Reason.OVERLOADED: ProblemType(429, "Overloaded", "More is asked than is taken at once. Send the request again after `Retry-After`."),
    Reason.ALREADY_EXISTS: ProblemType(409, "Already exists", "There is something of that name or content already."),
    Reason.STATE_CONFLICT: ProblemType(409, "Not in this state", "Its state does not permit this. `detail` says which it is."),
    Reason.VERIFICATION_NOT_FOUND: ProblemType(
        404, "No such handshake", "No handshake is under way at this address: it is incomplete, too old, or of a former sink."
    ),
    Reason.LOOP_DETECTED: ProblemType(
        508, "Loop detected", "The request is a webhook of Hooktide's own. Subscribe another URL than this API's."
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
