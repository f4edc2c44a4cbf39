"""Errors: the failures that are the registry's own, each with what the caller can change."""

from services.runtime.errors import Failure, Reason

STORAGE_RETRY_S = 5.0
BUSY_RETRY_S = 1.0
HANDSHAKE_RETRY_S = 600.0


def subscription_not_found() -> Failure:
    """No such subscription, or another consumer's: the two are not told apart."""
    return Failure(Reason.SUBSCRIPTION_NOT_FOUND, "There is no such subscription; the list of subscriptions shows those there are.")


def consumer_not_found() -> Failure:
    """No such consumer."""
    return Failure(Reason.CONSUMER_NOT_FOUND, "There is no such consumer; create it first.")


def key_not_found() -> Failure:
    """No such API key, or it is revoked."""
    return Failure(Reason.KEY_NOT_FOUND, "There is no such key, or it is revoked; the list of keys shows those there are.")


def event_type_not_found() -> Failure:
    """No such event type."""
    return Failure(Reason.EVENT_TYPE_NOT_FOUND, "There is no such event type; the catalogue shows those there are.")


def key_invalid() -> Failure:
    """An API key that opens nothing; why is not said, since that would help whoever guesses."""
    return Failure(Reason.KEY_INVALID, "The API key is malformed, unknown, expired or revoked; use another one.")


def etag_mismatch() -> Failure:
    """The caller decided on an older state than the one that stands now."""
    return Failure(Reason.ETAG_MISMATCH, "It has changed since that etag was read; read it again and decide anew.")


def request_id_reused() -> Failure:
    """The same request id with another content."""
    return Failure(Reason.IDEMPOTENCY_KEY_REUSED, "This request id was used with another request in the last 24 hours; use a new one.")


def too_many_secrets(secrets_max: int) -> Failure:
    """More live secrets than signatures can be made with."""
    message = f"{secrets_max} secrets are live already; wait until one expires, or rotate with an overlap of 0 to end them all."
    return Failure(Reason.STATE_CONFLICT, message)


def sink_changed() -> Failure:
    """What a caller knows of a subscription's endpoint is about a former one."""
    return Failure(Reason.ETAG_MISMATCH, "The subscription has another sink by now; begin anew with that one.")


def handshake_off() -> Failure:
    """Nobody asks sinks for their consent here."""
    return Failure(Reason.STATE_CONFLICT, "The operator has switched ownership handshakes off; a subscription needs none here.")


def too_many_handshakes(begun_max: int) -> Failure:
    """A sink is asked too often."""
    message = f"The sink was asked {begun_max} times within an hour; wait before it is asked again."
    return Failure(Reason.OVERLOADED, message, retry_after_s=HANDSHAKE_RETRY_S)


def verification_not_found() -> Failure:
    """A callback token that stands for no sink's consent; which of the reasons it is, is not said."""
    message = "No handshake is under way here: the address is mistyped, older than 24 hours, or of a former sink. Ask for a new one."
    return Failure(Reason.VERIFICATION_NOT_FOUND, message)


def revision_compacted() -> Failure:
    """A watch cannot go on from the revision it names."""
    return Failure(Reason.REVISION_COMPACTED, "The changes after this revision are not kept here; begin anew with revision 0.")


def overloaded() -> Failure:
    """More work waits than the registry takes at once."""
    return Failure(Reason.OVERLOADED, "The registry has more to do than it takes at once; try again.", retry_after_s=BUSY_RETRY_S)


def storage_full() -> Failure:
    """The disk is full; nothing was written."""
    message = "The registry's disk is full; nothing was changed. Try again once there is room."
    return Failure(Reason.STORAGE_FULL, message, retry_after_s=STORAGE_RETRY_S)


def unavailable(why: str) -> Failure:
    """The registry cannot serve this now; `why` is a clause."""
    return Failure(Reason.UNAVAILABLE, f"The registry is away: {why}; try again.", retry_after_s=BUSY_RETRY_S)
