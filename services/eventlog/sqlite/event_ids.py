"""Event ids: UUIDs of version 7 that carry their partition and grow strictly, within a millisecond and when the clock goes back.

    ms 48 | 0111 | counter's high 12 | 10 | counter's low 52 | partition 10

The counter has 64 bits. Each millisecond begins it at a random number, and each id increments it by a random step (RFC 9562, section 6.2,
method 2). Ids and positions grow together, so the log finds an event by its id without an index on ids. The partition stands below the
counter and does not change this order.
"""

import secrets
from collections.abc import Sequence

_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62
_COUNTER_BITS = 64
_LOW_BITS = 52
_LOW_MASK = (1 << _LOW_BITS) - 1
_PARTITION_BITS = 10
_STEP_BYTES = 5


class EventIds:
    """Makes growing ids; for use in one thread."""

    def __init__(self, last: bytes | None = None) -> None:
        """Begin after `last`, the 16 bytes of the newest id in use."""
        value = int.from_bytes(last, "big") if last else 0
        self._ms = value >> 80
        self._counter = ((value >> 64) & 0xFFF) << _LOW_BITS | (value >> _PARTITION_BITS) & _LOW_MASK

    def take(self, now_ms: int, partitions: Sequence[int]) -> list[bytes]:
        """Return one id of 16 bytes for each partition, each id greater than all before."""
        if now_ms > self._ms:
            self._ms = now_ms
            # The top bit stays 0, so that increments do not overflow.
            self._counter = secrets.randbits(_COUNTER_BITS - 1)
        ms, counter = self._ms, self._counter
        steps = secrets.token_bytes(len(partitions) * _STEP_BYTES)
        ids = []
        for start, partition in zip(range(0, len(steps), _STEP_BYTES), partitions, strict=True):
            counter += int.from_bytes(steps[start : start + _STEP_BYTES], "big") + 1
            if counter >> _COUNTER_BITS:
                ms += 1
                counter &= (1 << (_COUNTER_BITS - 1)) - 1
            high, low = counter >> _LOW_BITS, counter & _LOW_MASK
            ids.append((ms << 80 | _VERSION | high << 64 | _VARIANT | low << _PARTITION_BITS | partition).to_bytes(16, "big"))
        self._ms, self._counter = ms, counter
        return ids
