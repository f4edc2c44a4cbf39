"""API key: the form of an API key. A checksum refuses keys with a typing error, and most guesses, without a lookup.

gateway, ingest → [api_key] → registry

``hkt_`` + 43 base62 digits of 32 random bytes + 6 base62 digits of a CRC-32 over everything before them.
Law: pure, except for the random bytes of a new key.
"""

import re
import secrets
import zlib

PREFIX = "hkt_"
RANDOM_BYTES = 32
RANDOM_DIGITS = 43
CHECKSUM_DIGITS = 6
_HINT_CHARS = 8
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_FORM = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{RANDOM_DIGITS + CHECKSUM_DIGITS}}}", re.ASCII)


def new_key() -> str:
    """Return a new API key in clear."""
    return format_key(secrets.token_bytes(RANDOM_BYTES))


def format_key(random: bytes) -> str:
    """Return the API key for 32 random bytes."""
    assert len(random) == RANDOM_BYTES  # noqa: S101 - a caller's mistake, not an input
    body = PREFIX + base62(int.from_bytes(random, "big"), RANDOM_DIGITS)
    return body + _checksum(body)


def parse_key(text: str) -> bytes | None:
    """Return the 32 random bytes of an API key; None for anything that `format_key` does not make."""
    if _FORM.fullmatch(text) is None:
        return None
    body, checksum = text[:-CHECKSUM_DIGITS], text[-CHECKSUM_DIGITS:]
    value = base62_value(body[len(PREFIX) :])
    if checksum != _checksum(body) or value >= 1 << 8 * RANDOM_BYTES:
        return None
    return value.to_bytes(RANDOM_BYTES, "big")


def hint(key: str) -> str:
    """Return a key's first characters, by which people recognise it: ``hkt_4fTz…``."""
    return f"{key[:_HINT_CHARS]}…"


def base62(value: int, width: int) -> str:
    """Return a number in base 62, most significant digit first, filled with zeros up to `width`."""
    digits = ""
    while value:
        value, digit = divmod(value, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits.rjust(width, "0")


def base62_value(text: str) -> int:
    """Return the number that base 62 digits stand for; raises KeyError for another character."""
    value = 0
    for digit in text:
        value = value * len(_DIGITS) + _VALUES[digit]
    return value


def _checksum(body: str) -> str:
    return base62(zlib.crc32(body.encode()), CHECKSUM_DIGITS)
