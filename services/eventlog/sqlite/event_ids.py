"""Event ids: UUIDs of version 7 that grow strictly, even within a millisecond and when the clock goes back.

RFC 9562, section 6.2, method 2: within one millisecond, each id increments the random part by a random step.
Ids and positions grow together, so the log finds an event by its id without an index on ids.
"""

import secrets

_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62
_RANDOM_BITS = 74
_LOW_BITS = 62
_LOW_MASK = (1 << _LOW_BITS) - 1


class GrowingUuid7:
    """Makes growing ids; for use in one thread."""

    def __init__(self, last: bytes | None = None) -> None:
        """Begin after `last`, the 16 bytes of the newest id in use."""
        value = int.from_bytes(last, "big") if last else 0
        self._ms = value >> 80
        self._random = ((value >> 64) & 0xFFF) << _LOW_BITS | (value & _LOW_MASK)

    def take(self, now_ms: int, count: int) -> list[bytes]:
        """Return `count` ids of 16 bytes, each greater than all before."""
        if now_ms > self._ms:
            self._ms = now_ms
            # The top bit stays 0, so that increments do not overflow.
            self._random = secrets.randbits(_RANDOM_BITS - 1)
        steps = secrets.token_bytes(count * 5)
        ids = []
        for start in range(0, count * 5, 5):
            self._random += int.from_bytes(steps[start : start + 5], "big") + 1
            if self._random >> _RANDOM_BITS:
                self._ms += 1
                self._random &= (1 << (_RANDOM_BITS - 1)) - 1
            high, low = self._random >> _LOW_BITS, self._random & _LOW_MASK
            ids.append((self._ms << 80 | _VERSION | high << 64 | _VARIANT | low).to_bytes(16, "big"))
        return ids
