"""Ids: a type prefix and a time-ordered UUID (RFC 9562, version 7), without any dot.

Ids sort by the time of their creation, so indexes over them grow at one end.
"""

import re
from typing import Literal

from uuid_utils import uuid7

Prefix = Literal["sub", "evt", "dlv", "con", "key", "rpl", "req"]

_ID = re.compile(r"(?:sub|evt|dlv|con|key|rpl|req)_[0-9a-f]{32}")
_PREFIX_CHARS = 4


def new_id(prefix: Prefix) -> str:
    """Return a new id, for example ``sub_0192f0c1a2b37c4d8e5f60718293a4b5``."""
    return f"{prefix}_{uuid7().hex}"


def is_id(text: str, prefix: Prefix) -> bool:
    """Return whether a text has the form of an id of this type."""
    return text.startswith(f"{prefix}_") and _ID.fullmatch(text) is not None


def id_bytes(text: str) -> bytes:
    """Return the 16 bytes behind an id of valid form."""
    return bytes.fromhex(text[_PREFIX_CHARS:])


def id_text(prefix: Prefix, raw: bytes) -> str:
    """Return the id for 16 bytes."""
    return f"{prefix}_{raw.hex()}"
