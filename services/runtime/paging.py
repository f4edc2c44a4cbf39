"""Paging: coerces page sizes into their limits, and makes page tokens that only the same list accepts.

A token is base64url over a JSON array of the list's kind and the values to continue after, with a CRC against truncation and typing
errors. The token is opaque, not secret: every list checks access on each page.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Iterable

from services.runtime.errors import Failure, Reason

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 200
PAGE_BYTES_MAX = 2 * 1024 * 1024
"""A page ends before the item that would make it larger than this, so that it fits into one gRPC message."""
_CRC_BYTES = 4

PageStart = tuple[str | int, ...]


def page_size(asked: int) -> int:
    """Coerce a page size: 0 or less to the default, above the maximum to the maximum."""
    return PAGE_SIZE_DEFAULT if asked <= 0 else min(asked, PAGE_SIZE_MAX)


def page_token(kind: str, start: PageStart) -> str:
    """Return the token that continues the list `kind` after `start`."""
    raw = json.dumps([kind, *start], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(zlib.crc32(raw).to_bytes(_CRC_BYTES, "big") + raw).decode().rstrip("=")


def fitting(sizes: Iterable[int], bytes_max: int = PAGE_BYTES_MAX) -> int:
    """Return how many of a page's items, given their sizes in bytes, fit into one page: at least one if there is any."""
    total = count = 0
    for size in sizes:
        total += size
        if count and total > bytes_max:
            break
        count += 1
    return count


def parse_page_token(kind: str, token: str, shape: tuple[type, ...]) -> PageStart | None:
    """Return where the page of a token starts, None for the empty token.

    Raises `Failure` PAGE_TOKEN_INVALID for anything that `page_token(kind, …)` with values of the types in `shape` cannot have made.
    Anybody can compute a CRC, so treat the values as the caller's input: any number of 64 bits, any Unicode text.
    """
    if not token:
        return None
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        crc, raw = data[:_CRC_BYTES], data[_CRC_BYTES:]
        value = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        raise _invalid() from None
    if zlib.crc32(raw).to_bytes(_CRC_BYTES, "big") != crc or not isinstance(value, list):
        raise _invalid()
    if value[:1] != [kind] or tuple(type(part) for part in value[1:]) != shape or not all(_storable(part) for part in value[1:]):
        raise _invalid()
    return tuple(value[1:])


def _storable(part: str | int) -> bool:
    """Return whether a database can store a value."""
    if isinstance(part, int):
        return -(1 << 63) <= part < 1 << 63
    return not any("\ud800" <= char <= "\udfff" for char in part)


def _invalid() -> Failure:
    return Failure(
        Reason.PAGE_TOKEN_INVALID,
        "The page token was not returned by this list; leave it out to begin at the first page.",
    )
