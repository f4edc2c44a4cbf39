"""Errors: the registry's own failures; each message says what the caller can change."""

from services.runtime.errors import Failure, Reason

STORAGE_RETRY_S = 5.0
BUSY_RETRY_S = 1.0
VERIFICATION_RETRY_S = 600.0


def subscription_not_found() -> Failure:
    """There is no such subscription, or it is another consumer's; the failure does not tell the two apart."""
    return Failure(Reason.SUBSCRIPTION_NOT_FOUND, "There is no such subscription; the list of subscriptions shows those there are.")


def consumer_not_found() -> Failure:
    """There is no such consumer."""
    return Failure(Reason.CONSUMER_NOT_FOUND, "There is no such consumer; create it first.")


def key_not_found() -> Failure:
    """There is no such API key, or it is revoked."""
    return Failure(Reason.KEY_NOT_FOUND, "There is no such key, or it is revoked; the list of keys shows those there are.")


def event_type_not_found() -> Failure:
    """There is no such event type."""
    return Failure(Reason.EVENT_TYPE_NOT_FOUND, "There is no such event type; the catalogue shows those there are.")


def key_invalid() -> Failure:
    """The API key is not valid. The failure does not say why, since the reason would help an attacker who guesses."""
    return Failure(Reason.KEY_INVALID, "The API key is malformed, unknown, expired or revoked; use another one.")


def etag_mismatch() -> Failure:
    """The caller based its change on an older state than the present one."""
    return Failure(Reason.ETAG_MISMATCH, "It has changed since that etag was read; read it again and decide anew.")


def request_id_reused() -> Failure:
    """The caller used a request id again with different content."""
    return Failure(Reason.IDEMPOTENCY_KEY_REUSED, "This request id was used with another request in the last 24 hours; use a new one.")


def too_many_secrets(secrets_max: int) -> Failure:
    """The subscription already has the most live secrets that one scheme may have."""
    message = f"{secrets_max} secrets are live already; wait until one expires, or rotate with an overlap of 0 to end them all."
    return Failure(Reason.STATE_CONFLICT, message)


def sink_changed() -> Failure:
    """The caller acts on a former sink of the subscription."""
    return Failure(Reason.ETAG_MISMATCH, "The subscription has another sink by now; begin anew with that one.")


def verification_off() -> Failure:
    """Sink verification is off: this system does not ask sinks for consent."""
    return Failure(Reason.STATE_CONFLICT, "The operator has switched ownership handshakes off; a subscription needs none here.")


def too_many_verifications(begun_max: int) -> Failure:
    """The sink was asked for its consent too often."""
    message = f"The sink was asked {begun_max} times within an hour; wait before it is asked again."
    return Failure(Reason.OVERLOADED, message, retry_after_s=VERIFICATION_RETRY_S)


def verification_not_found() -> Failure:
    """The callback token belongs to no sink verification under way. The failure does not say which of the reasons applies."""
    message = "No handshake is under way here: the address is mistyped, older than 24 hours, or of a former sink. Ask for a new one."
    return Failure(Reason.VERIFICATION_NOT_FOUND, message)


def revision_compacted() -> Failure:
    """A watch cannot resume from the revision that it names."""
    return Failure(Reason.REVISION_COMPACTED, "The changes after this revision are not kept here; begin anew with revision 0.")


def overloaded() -> Failure:
    """More calls wait than the registry accepts at once."""
    return Failure(Reason.OVERLOADED, "The registry has more to do than it takes at once; try again.", retry_after_s=BUSY_RETRY_S)


def storage_full() -> Failure:
    """The disk is full; nothing was written."""
    message = "The registry's disk is full; nothing was changed. Try again once there is room."
    return Failure(Reason.STORAGE_FULL, message, retry_after_s=STORAGE_RETRY_S)


def unavailable(why: str) -> Failure:
    """The registry cannot serve the call now; `why` is a clause."""
    return Failure(Reason.UNAVAILABLE, f"The registry is away: {why}; try again.", retry_after_s=BUSY_RETRY_S)
