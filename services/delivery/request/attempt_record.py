"""Attempt record: what an attempt came to, as the ledger stores it and the log tells it.

transport → sender → [attempt_record: redaction] → dispatcher → ledger, log
"""

from services.delivery.model import Attempt, Delivery
from services.delivery.request.redaction import redacted, secrets_of
from services.delivery.request.request_settings import RequestSettings
from services.delivery.transport.protocol import RESPONSE_BYTES_KEPT, Answer, Outcome
from services.runtime.logs import logger


def attempt_of(answer: Answer, settings: RequestSettings, started_ms: int, duration_ms: int) -> Attempt:
    """Return the record of an attempt made with `settings`, without the secrets that the endpoint may have repeated in its answer."""
    if answer.outcome is Outcome.DELIVERED:
        return Attempt(started_ms, duration_ms, answer.outcome, answer.status, "", "")
    error, body = answer.error, answer.body.decode("utf-8", "replace").replace("\x00", "\ufffd")
    # Among this project's error sentences, only the TLS one can contain text from the endpoint.
    if body or answer.outcome is Outcome.TLS:
        secrets = (*answer.sent_secrets, *secrets_of(settings.credential, settings.secrets))
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
