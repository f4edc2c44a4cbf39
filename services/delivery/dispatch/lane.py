"""Lane: what waits for one subscription.

route → [lane] → attempt

A lane is *direct* while all that waits fits into memory. Otherwise it is *spilled*: routing only
writes rows, and the lane reads them back in the order of their positions until it has caught up.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.delivery.dispatch.sink_health import Trouble
from services.delivery.dispatch.token_bucket import Bucket
from services.delivery.model import Delivery


@dataclass(slots=True, eq=False)
class Lane:
    """The queue of one subscription."""

    subscription_id: str
    trouble: Trouble | None = None
    """What is known of its sink; None while that has never failed."""
    bucket: Bucket = field(default_factory=Bucket)
    queue: deque[Delivery] = field(default_factory=deque)
    in_flight: int = 0
    spilled: bool = False
    put_back: int = 0
    """How often what was in its queue was put back among the rows."""
    unflushed_spills: int = 0
    """Deliveries routed while spilled whose rows are not written yet."""
    live: dict[bytes, Delivery] = field(default_factory=dict)
    """The deliveries held in memory by their ids: queued, under way, or waiting for their flush."""
    next_due_ms: int | None = None
    """When the next of its waiting rows is due, as far as is known; None where none waits."""
    added_due_ms: int | None = None
    """The same of those rows alone that began to wait after the latest reading of its rows began."""
    refilling: bool = False
    ready: bool = False
    """Whether it stands in the dispatcher's round."""

    def row_waits(self, due_ms: int) -> None:
        """Note that a row waits to be read back, from a time on."""
        self.next_due_ms = earlier(self.next_due_ms, due_ms)
        self.added_due_ms = earlier(self.added_due_ms, due_ms)


class Readings:
    """Which deliveries leave memory while rows are read: by the time the rows are here, theirs may be out of date."""

    def __init__(self) -> None:
        self._under_way: dict[int, tuple[str, set[bytes]]] = {}
        self._begun = 0

    @contextlib.contextmanager
    def begun(self, subscription_id: str = "") -> Iterator[set[bytes]]:
        """While rows of a subscription (empty: of all) are read, gather the ids of the deliveries noted."""
        self._begun += 1
        number, left = self._begun, set[bytes]()
        self._under_way[number] = (subscription_id, left)
        try:
            yield left
        finally:
            del self._under_way[number]

    def note(self, delivery: Delivery) -> None:
        """Note that a delivery leaves memory, and that its row has changed since it came."""
        for subscription_id, left in self._under_way.values():
            if subscription_id in {"", delivery.subscription_id}:
                left.add(delivery.id)


def earlier(one_ms: int | None, other_ms: int | None) -> int | None:
    """Return the earlier of two times, None standing for never."""
    if one_ms is None or other_ms is None:
        return other_ms if one_ms is None else one_ms
    return min(one_ms, other_ms)
