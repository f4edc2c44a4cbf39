"""Errors: the registry's own failures; each message says what the caller can change."""

from services.runtime.errors import Failure, Reason

STORAGE_RETRY_S = 5.0
BUSY_RETRY_S = 1.0
VERIFICATION_RETRY_S = 600.0


def subscription_not_found() -> Failure:
    """There is no such subscription, or it is another consumer's; the failure does not tell the two apart."""
    return Failure(Reason.SUBSCRIPTION_NOT_FOUND, "There is no such subscription; check its id in the list of subscriptions.")


def consumer_not_found() -> Failure:
    """There is no such consumer."""
    return Failure(Reason.CONSUMER_NOT_FOUND, "There is no such consumer; create the consumer first.")


def key_not_found() -> Failure:
    """There is no such API key, or it is revoked."""
    return Failure(Reason.KEY_NOT_FOUND, "There is no such API key, or it is revoked; check its id in the list of keys.")


def event_type_not_found() -> Failure:
    """There is no such event type."""
    return Failure(Reason.EVENT_TYPE_NOT_FOUND, "There is no such event type; check its name in the catalogue.")


def key_invalid() -> Failure:
    """The API key is not valid. The failure does not say why, since the reason would help an attacker who guesses."""
    return Failure(Reason.KEY_INVALID, "The API key is malformed, unknown, expired or revoked; use a valid key.")


def etag_mismatch() -> Failure:
    """The caller based its change on an older state than the present one."""
    return Failure(
        Reason.ETAG_MISMATCH,
        "The resource has changed since this etag was read; read it again, and decide whether your change still applies.",
    )


def request_id_reused() -> Failure:
    """The caller used a request id again with different content."""
    return Failure(
        Reason.IDEMPOTENCY_KEY_REUSED, "This request id was used for a different request in the last 24 hours; use a new request id."
    )


def too_many_secrets(secrets_max: int) -> Failure:
    """The subscription already has the most live secrets that one scheme may have."""
    message = (
        f"The subscription has {secrets_max} valid secrets already; wait until one expires, or rotate with an overlap of 0, which "
        "ends all of them."
    )
    return Failure(Reason.STATE_CONFLICT, message)


def sink_changed() -> Failure:
    """The caller acts on a former sink of the subscription."""
    return Failure(Reason.ETAG_MISMATCH, "The subscription's sink has changed; read the subscription again and verify the new sink.")


def verification_off() -> Failure:
    """Sink verification is off: this system does not ask sinks for consent."""
    return Failure(Reason.STATE_CONFLICT, "The operator has switched sink verification off, so subscriptions work without it.")


def nothing_to_pause() -> Failure:
    """A disabled subscription cannot be paused."""
    message = "The subscription is disabled and gets no events, so it cannot be paused; first enable it, by its resume or by another sink."
    return Failure(Reason.STATE_CONFLICT, message)


def unverified() -> Failure:
    """A subscription that waits for its sink's consent can be neither paused nor resumed."""
    return Failure(Reason.STATE_CONFLICT, "The subscription's sink has not consented, so it gets no events; verify the sink first.")


def too_many_verifications(begun_max: int) -> Failure:
    """The sink was asked for its consent too often."""
    message = f"The sink was asked for its consent {begun_max} times within an hour; wait before you verify it again."
    return Failure(Reason.OVERLOADED, message, retry_after_s=VERIFICATION_RETRY_S)


def verification_not_found() -> Failure:
    """The callback token belongs to no sink verification under way. The failure does not say which of the reasons applies."""
    message = (
        "No sink verification is under way at this address: the address is incomplete, older than 24 hours, or of a former sink. "
        "Start a new verification."
    )
    return Failure(Reason.VERIFICATION_NOT_FOUND, message)


def revision_compacted() -> Failure:
    """A watch cannot resume from the revision that it names."""
    return Failure(Reason.REVISION_COMPACTED, "The registry no longer has the changes after this revision; watch again from revision 0.")


def overloaded() -> Failure:
    """More calls wait than the registry accepts at once."""
    return Failure(Reason.OVERLOADED, "Too many calls wait for the registry; try again.", retry_after_s=BUSY_RETRY_S)


def storage_full() -> Failure:
    """The disk is full; nothing was written."""
    message = "The registry's disk is full, and nothing was changed; try again when there is free space."
    return Failure(Reason.STORAGE_FULL, message, retry_after_s=STORAGE_RETRY_S)


def unavailable(why: str) -> Failure:
    """The registry cannot serve the call now; `why` is a clause."""
    return Failure(Reason.UNAVAILABLE, f"The registry is unavailable: {why}; try again.", retry_after_s=BUSY_RETRY_S)
