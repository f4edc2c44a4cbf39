"""Idempotency: reads the idempotency key of a request, by which a repetition gets the first answer."""

import hashlib
import re

from gateway.problems import invalid_request
from gateway.router import Call
from services.runtime.errors import FieldError

IDEMPOTENCY_KEY_CHARS_MAX = 200
_IDEMPOTENCY_KEY = re.compile(rf"[\x21-\x7e]{{1,{IDEMPOTENCY_KEY_CHARS_MAX}}}")


def request_id_of(call: Call) -> str:
    """Return the id by which services recognise a repeated call, made from API key, method, path and `Idempotency-Key`; "" without one.

    Raises `Failure` INVALID_ARGUMENT if the header is malformed.
    """
    sent = call.request.headers.getall("idempotency-key", [])
    if not sent:
        return ""
    if len(sent) > 1 or _IDEMPOTENCY_KEY.fullmatch(sent[0]) is None:
        description = f"must be sent once, with 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters"
        raise invalid_request([FieldError("Idempotency-Key:", description)])
    parts = (call.caller.key_id, call.request.method, call.request.rel_url.raw_path, sent[0])
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
