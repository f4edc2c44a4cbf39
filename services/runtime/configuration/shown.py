"""Shown: how a line of an error or a log may show a value that somebody set."""

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://", re.ASCII)
CHARS_MAX = 80


def shown(text: str) -> str:
    """Return a value in quotes: printable, without a password, and at most about 80 characters of it."""
    quoted = ascii(without_password(text))
    return quoted if len(quoted) <= CHARS_MAX else f"{quoted[:CHARS_MAX]}…"


def plainly_shown(text: str) -> str:
    """Return a value as it is if a line can show it so, else as `shown` does."""
    plain = without_password(text)
    return plain if plain.isprintable() and len(plain) <= CHARS_MAX else shown(plain)


def without_password(text: str) -> str:
    """Return a value without what may be a secret before its last @: all of it in a URL, else `user:password`."""
    before, at, after = text.rpartition("@")
    scheme = _SCHEME.match(before)
    begins = scheme[0] if scheme else ""
    return f"{begins}...@{after}" if at and (scheme or ":" in before) else text
