"""Request builder: builds the HTTP request of one attempt.

lane → sender → [request_builder: event_encoder, signing, credentials] → transport

Law 1: pure.
Law 2: Hooktide's own headers come last, so that a subscription's headers cannot replace them.
"""

from collections.abc import Callable

from services.delivery.model import Content, Delivery
from services.delivery.request import event_encoder, signing, signing_rfc9421
from services.delivery.request.access_token_state import Token
from services.delivery.request.credentials import headers_of
from services.delivery.request.request_settings import Subscription, tls_of
from services.delivery.transport.protocol import Request

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
    """Return the request of the next attempt: the same body as in every attempt, a signature for now, and the subscription's settings.

    `origin` is the name by which sinks know this system, "" for none. OAuth2 needs a `token`. `may_begin` is as in `Request`.
    Raises `ValueError` if the event cannot be encoded.
    """
    settings, timestamp_s = subscription.settings, now_ms // 1000
    content = _content(delivery)
    headers = {**settings.headers, **headers_of(settings.credential, token)} if settings.headers or settings.credential else {}
    headers |= content.headers
    headers["user-agent"] = USER_AGENT
    headers["webhook-id"] = delivery.event_id
    headers["webhook-timestamp"] = str(timestamp_s)
    headers["webhook-signature"] = signing.signatures(delivery.event_id, timestamp_s, content.body, settings.secrets, settings.keys, now_ms)
    headers["hooktide-subscription-id"] = subscription.id
    headers["hooktide-attempt"] = str(len(delivery.attempts) + 1)
    if origin:
        headers |= origin_headers(origin)
    if settings.message_signature:
        by = signing_rfc9421.signers(settings.secrets, settings.keys, now_ms)
        headers |= signing_rfc9421.message_signature(subscription.sink, headers, content.body, by, timestamp_s)
    return Request(
        subscription.sink,
        headers,
        content.body,
        "POST",
        settings.timeout_s,
        tls_of(settings),
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
        content = event.contents[delivery.body_mode] = event_encoder.encoded(event.record.event, delivery.body_mode, delivery.encoder)
    return content
