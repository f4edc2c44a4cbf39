"""Ids: UUIDs of version 7 (RFC 9562), made with the standard library only.

Ids sort in the order of their creation, so indexes over them grow at one end.
"""

import os
import time

_NS_PER_MS = 1_000_000
_VERSION = 7 << 76
_VARIANT = 0b10 << 62
_RANDOM_MASK = (1 << 62) - 1
_SUB_MS_MASK = 0xFFF


class TimeOrderedIds:
    """Makes ids from 48 bits of milliseconds, 12 bits of fraction or count, and 62 random bits.

    Law: the ids of one instance strictly increase, even if the clock stands still or steps back.
    The system provides the random bits on every call, so forked processes never make the same id.
    """

    def __init__(self) -> None:
        self._tick = 0

    def __call__(self) -> str:
        """Return a new id as text, for example ``0192f0c1-a2b3-7c4d-8e5f-60718293a4b5``."""
        ms, ns = divmod(time.time_ns(), _NS_PER_MS)
        tick = ms << 12 | ns * 4096 // _NS_PER_MS
        if tick <= self._tick:
            tick = self._tick + 1
        self._tick = tick
        random_bits = int.from_bytes(os.urandom(8), "big") & _RANDOM_MASK
        text = f"{tick >> 12 << 80 | _VERSION | (tick & _SUB_MS_MASK) << 64 | _VARIANT | random_bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


new_event_id = TimeOrderedIds()
