"""Header rules: which headers a consumer may add to its webhooks.

settings_validation, credential_validation → [header_rules]

Law 1: pure. Names are compared without regard to case, and no value can end its line.
Law 2: a consumer cannot set the headers that frame the message, that Hooktide sets or forbids, or that intermediaries read.
"""

import re
from collections.abc import Sequence

from services.runtime.errors import FieldError

HEADERS_MAX = 20
NAME_CHARS_MAX = 100
VALUE_CHARS_MAX = 1024
HEADERS_CHARS_MAX = 8192

# Narrower than a token of RFC 9110: some intermediaries drop other names, or read them differently.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?", re.ASCII)
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_OURS = frozenset(
    {
        # Headers that frame the message, or apply to one connection only.
        *("host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "expect"),
        # Headers that Hooktide sets itself (its name, the date, signatures, the event's trace), or never sends (cookies, compression).
        *("user-agent", "date", "cookie", "accept-encoding", "signature", "signature-input", "traceparent", "tracestate"),
    }
)
_OUR_PREFIXES = ("webhook-", "hooktide-", "ce-", "proxy-", "content-")
_AUTHORIZATION = "authorization"


def name_problem(name: str, *, secret: bool = False) -> str | None:
    """Return what is wrong with a header's name, as a predicate for the name; `secret`: the header's value is never shown."""
    # Servers that pass headers on as variables treat `_` and `-` as the same character.
    lower = name.lower().replace("_", "-")
    if _NAME.fullmatch(name) is None or len(name) > NAME_CHARS_MAX:
        return f"must be at most {NAME_CHARS_MAX} letters, digits, - and _, and must begin and end with a letter or digit"
    if lower in _OURS or lower.startswith(_OUR_PREFIXES):
        ours = ", ".join(_OUR_PREFIXES)
        return f"is reserved: Hooktide sets it or it belongs to the connection, as do all names that begin with {ours}; use another name"
    if lower == _AUTHORIZATION and not secret:
        return "would be visible to everybody who reads the subscription; use a credential for it"
    return None


def value_problem(value: str, chars_max: int = VALUE_CHARS_MAX) -> str | None:
    """Return what is wrong with a header's value, as a predicate for the name, without repeating the value."""
    if len(value) > chars_max:
        return f"must be at most {chars_max} characters; this has {len(value)}"
    if _VALUE.fullmatch(value) is None:
        return "must be one or more printable ASCII characters, without spaces at either end"
    return None


def headers_problems(field: str, headers: Sequence[tuple[str, str]]) -> list[FieldError]:
    """Validate the headers that every webhook of a subscription carries; `field` is their field's name in the contract."""
    if len(headers) > HEADERS_MAX:
        return [FieldError(field, f"must be at most {HEADERS_MAX} headers; these are {len(headers)}")]
    problems = []
    seen = set[str]()
    for name, value in headers:
        why = name_problem(name) or value_problem(value)
        if why is None and name.lower() in seen:
            why = "is given more than once; header names that differ only in case are the same"
        if why is not None:
            problems.append(FieldError(f"{field}.{name}", why))
        seen.add(name.lower())
    if not problems and sum(len(name) + len(value) for name, value in headers) > HEADERS_CHARS_MAX:
        problems.append(FieldError(field, f"must have at most {HEADERS_CHARS_MAX} characters in total, over all names and values"))
    return problems
