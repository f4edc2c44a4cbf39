"""Conditions: reads the headers that make a request conditional or idempotent: ETags and Idempotency-Key."""

import hashlib
import re

from gateway.problems import invalid
from gateway.router import Call
from services.runtime.errors import Failure, FieldError, Reason

IDEMPOTENCY_KEY_CHARS_MAX = 200
_IDEMPOTENCY_KEY = re.compile(rf"[\x21-\x7e]{{1,{IDEMPOTENCY_KEY_CHARS_MAX}}}")
_TAG = r'(?:W/)?"[\x21\x23-\x7e]*"'
_TAGS = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")
_OPAQUE = re.compile(r'"([\x21\x23-\x7e]*)"')


def request_id_of(call: Call) -> str:
    """Return the id by which services recognise a repeated call, made from API key, method, path and `Idempotency-Key`; "" without one.

    Raises `Failure` INVALID_ARGUMENT if the header is malformed.
    """
    sent = call.request.headers.getall("idempotency-key", [])
    if not sent:
        return ""
    if len(sent) > 1 or _IDEMPOTENCY_KEY.fullmatch(sent[0]) is None:
        description = f"must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters, once"
        raise invalid([FieldError("Idempotency-Key:", description)])
    scope = (call.caller.key_id, call.request.method, call.request.rel_url.raw_path, sent[0])
    return hashlib.sha256("\n".join(scope).encode()).hexdigest()


def etag_to_match(call: Call) -> str:
    """Return the etag that a change requires (`If-Match`); "" if it requires none.

    Raises `Failure`: INVALID_ARGUMENT if the header is malformed, ETAG_MISMATCH for a weak ETag, which never matches.
    """
    sent = ", ".join(call.request.headers.getall("if-match", []))
    if sent in {"", "*"}:
        return ""
    if _TAGS.fullmatch(sent) is None or len(_OPAQUE.findall(sent)) > 1:
        raise invalid([FieldError("If-Match:", 'must be one ETag as it was read, in its quotation marks, such as "7b0c"')])
    if sent.startswith("W/"):
        raise Failure(Reason.ETAG_MISMATCH, "A weak ETag never matches; send the ETag as it was read.")
    return sent.strip('"')


def is_current(call: Call, etag: str) -> bool:
    """Return whether the client's copy (`If-None-Match`) has this etag; a malformed header is ignored."""
    sent = ", ".join(call.request.headers.getall("if-none-match", []))
    return sent == "*" or (_TAGS.fullmatch(sent) is not None and etag in _OPAQUE.findall(sent))
