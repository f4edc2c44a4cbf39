"""Readings: what leaves memory while rows are read.

dispatch → [readings] → refill
"""

import contextlib
from collections.abc import Iterator


class Readings:
    """The readings that are going on, by subscription (empty: all)."""

    def __init__(self) -> None:
        self._going_on: dict[int, tuple[str, set[bytes]]] = {}
        self._begun = 0

    @contextlib.contextmanager
    def reading(self, subscription_id: str = "") -> Iterator[set[bytes]]:
        """While rows of a subscription (empty: of all) are read, gather the ids of deliveries that leave memory.

        By the time the rows are here, those of such deliveries may be out of date.
        """
        self._begun += 1
        number, left = self._begun, set[bytes]()
        self._going_on[number] = (subscription_id, left)
        try:
            yield left
        finally:
            del self._going_on[number]

    def left(self, subscription_id: str, delivery_id: bytes) -> None:
        """Note that a delivery leaves memory."""
        for wanted, left in self._going_on.values():
            if wanted in {"", subscription_id}:
                left.add(delivery_id)
