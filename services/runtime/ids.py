"""Ids: a type prefix and a time-ordered UUID (RFC 9562, version 7), without any dot.

Ids sort by the time of their creation, so indexes over them grow at one end.

The lowest 8 bits of a subscription's id are its slot. Delivery workers divide the slots among themselves in contiguous intervals.
"""

import hashlib
import re
from typing import Literal

from uuid_utils import uuid7

Prefix = Literal["sub", "evt", "dlv", "con", "key", "rpl", "req"]

_ID = re.compile(r"(?:sub|evt|dlv|con|key|rpl|req)_[0-9a-f]{32}")
_PREFIX_CHARS = 4
SLOTS = 256
"""How many slots there are."""
WORKERS_MAX = 16
"""How many workers divide the slots at most."""
_SLOT_BITS = 8
_SLOT_CHARS = 2


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


def new_subscription_id(slot: int) -> str:
    """Return a new id of a subscription that has this slot."""
    assert 0 <= slot < SLOTS  # noqa: S101 - a caller's mistake, not an input
    return f"{new_id('sub')[:-_SLOT_CHARS]}{slot:02x}"


def slot_of(subscription_id: str) -> int:
    """Return the slot that a subscription's id carries, 0 to 255; the id must have a valid form."""
    return int(subscription_id[-_SLOT_CHARS:], 16)


def slot_in_turn(consumer_id: str, turn: int) -> int:
    """Return the slot of the subscription that a consumer creates as number `turn`, counted from 0.

    Consecutive turns are far apart (van der Corput's sequence in base 2), so that even a few subscriptions of one consumer are spread
    evenly over contiguous intervals of slots. The hash of the consumer's id decides where the sequence starts.
    """
    start = hashlib.blake2b(consumer_id.encode(), digest_size=1).digest()[0]
    return int(f"{(start + turn) % SLOTS:0{_SLOT_BITS}b}"[::-1], 2)
