"""Value redaction: makes the value of a setting safe to show in an error or a log line."""

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://", re.ASCII)
CHARS_MAX = 80


def quoted(text: str) -> str:
    """Return a value in quotes, printable, without a password, and cut to about 80 characters."""
    value = ascii(without_password(text))
    return value if len(value) <= CHARS_MAX else f"{value[:CHARS_MAX]}…"


def printable(text: str) -> str:
    """Return a value without quotes if it is printable and short, else as `quoted`; in both cases without a password."""
    plain = without_password(text)
    return plain if plain.isprintable() and len(plain) <= CHARS_MAX else quoted(plain)


def without_password(text: str) -> str:
    """Return a value without a possible secret before its last @: in a URL everything after the scheme, else `user:password`."""
    before, at, after = text.rpartition("@")
    scheme = _SCHEME.match(before)
    begins = scheme[0] if scheme else ""
    return f"{begins}...@{after}" if at and (scheme or ":" in before) else text
