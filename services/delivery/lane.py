"""Lane: what waits for one subscription.

route → [lane] → attempt

A lane is *direct* while all that waits fits into memory. Otherwise it is *spilled*: routing only
writes rows, and the lane reads them back in the order of their positions until it has caught up.
"""

from collections import deque
from dataclasses import dataclass, field

from services.delivery.breaker import Breaker
from services.delivery.model import Delivery


@dataclass(slots=True, eq=False)
class Lane:
    """The queue of one subscription."""

    subscription_id: str
    breaker: Breaker
    queue: deque[Delivery] = field(default_factory=deque)
    in_flight: int = 0
    spilled: bool = False
    unflushed_spills: int = 0
    """Deliveries routed while spilled whose rows are not written yet."""
    live: dict[bytes, Delivery] = field(default_factory=dict)
    """The deliveries held in memory by their ids: queued, under way, or waiting for their flush."""
    next_due_ms: int | None = None
    """When the next of its waiting rows is due, as far as is known."""
    throttled_until: float = 0.0
    """By the monotonic clock: the endpoint asked for a pause."""
    refilling: bool = False
    ready: bool = False
    """Whether it stands in the dispatcher's round."""
