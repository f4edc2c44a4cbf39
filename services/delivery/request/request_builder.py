"""Request builder: builds the HTTP request of one attempt, and the attempt's record from the answer.

lane → sender → [request_builder] → transport → retry_policy
"""

from collections.abc import Callable

from services.delivery.model import Attempt, Content, Delivery
from services.delivery.request import envelope, signing, signing_rfc9421
from services.delivery.request.credentials import headers_of
from services.delivery.request.oauth2 import Token
from services.delivery.request.redaction import redacted, secrets_of
from services.delivery.request.settings import Subscription, Terms, tls_of
from services.delivery.transport.protocol import RESPONSE_BYTES_KEPT, Answer, Outcome, Request
from services.runtime.logs import logger

USER_AGENT = "Hooktide/0.1"


def request_of(
    delivery: Delivery,
    subscription: Subscription,
    now_ms: int,
    *,
    origin: str = "",
    token: Token | None = None,
    may_begin: Callable[[], bool] | None = None,
) -> Request:
    """Return the request of the next attempt: the same body as in every attempt, a signature for now, and the subscription's terms.

    `origin` is the name by which sinks know this system, "" for none. OAuth2 needs a `token`. `may_begin` is as in `Request`.
    Raises `ValueError` if the event cannot be encoded.
    """
    terms, timestamp_s = subscription.terms, now_ms // 1000
    content = _content(delivery)
    headers = {**terms.headers, **headers_of(terms.credential, token)} if terms.headers or terms.credential else {}
    # Hooktide's own headers come last, so that a subscription's headers cannot replace them.
    headers |= content.headers
    headers["user-agent"] = USER_AGENT
    headers["webhook-id"] = delivery.event_id
    headers["webhook-timestamp"] = str(timestamp_s)
    headers["webhook-signature"] = signing.signatures(delivery.event_id, timestamp_s, content.body, terms.secrets, terms.keys, now_ms)
    headers["hooktide-subscription-id"] = subscription.id
    headers["hooktide-attempt"] = str(len(delivery.attempts) + 1)
    if origin:
        headers |= origin_headers(origin)
    if terms.message_signature:
        by = signing_rfc9421.signers(terms.secrets, terms.keys, now_ms)
        headers |= signing_rfc9421.message_signature(subscription.sink, headers, content.body, by, timestamp_s)
    return Request(
        subscription.sink,
        headers,
        content.body,
        "POST",
        terms.timeout_s,
        tls_of(terms),
        subscription.id,
        subscription.consumer_id,
        may_begin=may_begin,
    )


def origin_headers(origin: str) -> dict[str, str]:
    """Return the header that tells a sink which system it has consented to; no header if `origin` is empty."""
    return {"webhook-request-origin": origin} if origin else {}


def _content(delivery: Delivery) -> Content:
    """Return a delivery's body and headers; each event is encoded once for all of its deliveries with the same mode."""
    event = delivery.event
    if event is None:
        message = "the event is not in memory"
        raise ValueError(message)
    content = event.contents.get(delivery.body_mode)
    if content is None:
        content = event.contents[delivery.body_mode] = envelope.content(event.record.event, delivery.body_mode)
    return content


def attempt_of(answer: Answer, terms: Terms, started_ms: int, duration_ms: int) -> Attempt:
    """Return the record of an attempt made with `terms`, without the secrets that the endpoint may have repeated in its answer."""
    if answer.outcome is Outcome.DELIVERED:
        return Attempt(started_ms, duration_ms, answer.outcome, answer.status, "", "")
    error, body = answer.error, answer.body.decode("utf-8", "replace").replace("\x00", "\ufffd")
    # Among this project's error sentences, only the TLS one can contain text from the endpoint.
    if body or answer.outcome is Outcome.TLS:
        secrets = (*answer.sent_secrets, *secrets_of(terms.credential, terms.secrets))
        error, body = redacted(error, secrets), redacted(body, secrets, cut=len(answer.body) >= RESPONSE_BYTES_KEPT)
    return Attempt(started_ms, duration_ms, answer.outcome, answer.status, error, body)


def log_failure(delivery: Delivery, answer: Answer, **fields: object) -> None:
    """Log a failed attempt; `fields` tell what happens next."""
    logger().info(
        "attempt.failed",
        subscription=delivery.subscription_id,
        event_id=delivery.event_id,
        attempt=len(delivery.attempts),
        outcome=answer.outcome.name.lower(),
        status=answer.status,
        **fields,
    )
