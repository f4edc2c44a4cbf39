"""Preconditions: reads the headers that make a request conditional on an ETag (RFC 9110, section 13)."""

import re

from gateway.problems import invalid_request
from gateway.router import Call
from services.runtime.errors import Failure, FieldError, Reason

_TAG = r'(?:W/)?"[\x21\x23-\x7e]*"'
_TAGS = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")
_OPAQUE = re.compile(r'"([\x21\x23-\x7e]*)"')


def etag_to_match(call: Call) -> str:
    """Return the etag that a change requires (`If-Match`); "" if it requires none.

    Raises `Failure`: INVALID_ARGUMENT if the header is malformed, ETAG_MISMATCH for a weak ETag, which never matches.
    """
    sent = ", ".join(call.request.headers.getall("if-match", []))
    if sent in {"", "*"}:
        return ""
    if _TAGS.fullmatch(sent) is None or len(_OPAQUE.findall(sent)) > 1:
        raise invalid_request([FieldError("If-Match:", 'must be one ETag exactly as it was read, in quotation marks, such as "7b0c"')])
    if sent.startswith("W/"):
        raise Failure(Reason.ETAG_MISMATCH, "A weak ETag never matches; send the ETag exactly as it was read.")
    return sent.strip('"')


def is_current(call: Call, etag: str) -> bool:
    """Return whether the client's copy (`If-None-Match`) has this etag; a malformed header is ignored."""
    sent = ", ".join(call.request.headers.getall("if-none-match", []))
    return sent == "*" or (_TAGS.fullmatch(sent) is not None and etag in _OPAQUE.findall(sent))
