"""Lane: the deliveries that wait for one subscription.

router → [lane] → dispatcher

A lane is live, behind or joining: `owed_ranges.py` says what each means. What waits for a lane stands in its queue, as rows that are
read back when they are due, or in its owed ranges, which are read from the log. A live lane that may not send is *spilled*: routing
writes rows for it, but only a few; then the lane goes behind.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.delivery.dispatch import lifecycle
from services.delivery.dispatch.concurrency_limit import ConcurrencyLimit
from services.delivery.dispatch.fair_rounds import Account, Consumer, Flow, Work
from services.delivery.dispatch.key_order import KeyOrder
from services.delivery.dispatch.sink_health import SinkHealth
from services.delivery.dispatch.token_bucket import TokenBucket
from services.delivery.dispatch.unproven_sinks import DISTANCE_FIRST_S
from services.delivery.model import Delivery, OwedRange, Phase
from services.delivery.request.request_settings import RequestSettings
from services.runtime.logs import logger

_FEW_LANES = 20
FAILED_ROWS_MAX = 100_000
"""How many rows of one subscription may wait for further attempts before it takes nothing new."""


@dataclass(slots=True, eq=False)
class Lane:
    """The queue of one subscription."""

    subscription_id: str
    consumer: Consumer = field(default_factory=Consumer)
    account: Account = field(default_factory=Account)
    flow: Flow | None = None
    """The flow in which it waits for its turn, or waited last; None before the first time."""
    settings: RequestSettings | None = None
    """The settings by which it sends, as it knows them; None if its subscription does not exist."""
    work: Work = Work.FRESH
    """The class of its deliveries' first attempts."""
    sink_health: SinkHealth | None = None
    """The health of its sink; None while the sink has never failed."""
    bucket: TokenBucket = field(default_factory=TokenBucket)
    queue: deque[Delivery] = field(default_factory=deque)  # bounded: by `LaneTable`; a full lane goes behind
    joined: deque[Delivery] = field(default_factory=deque)  # bounded: with `queue`
    """While it is joining: the deliveries above its last range. They wait until that range is read."""
    limit: ConcurrencyLimit = field(default_factory=ConcurrencyLimit)
    in_flight: int = 0
    order: KeyOrder | None = None
    """Which of its deliveries may start; None unless its subscription asks for order."""
    spilled: bool = False
    """Whether rows wait that come before what is routed next."""
    waiting_rows: int = 0
    """About how many rows wait that were never attempted."""
    failed_rows: int = 0
    """About how many rows wait for a further attempt."""
    is_slowed: bool = False
    """Whether it takes nothing more because it has too many of these."""
    ranges: list[OwedRange] = field(default_factory=list)  # bounded: by `owed_ranges.RANGES_MAX`
    """The ranges that it owes, in the order of their positions."""
    paging: bool = False
    """Whether a page of its range is asked for or being read."""
    generation: int = 0
    """How often it went behind, was paused or was changed; what was read from rows or pages before that is out of date."""
    unflushed_spills: int = 0
    """How many deliveries are spilled and have no written row yet."""
    held: dict[Delivery, None] = field(default_factory=dict)
    """The deliveries held in memory: queued, under way, or waiting for their flush. Ids are no keys, since a flush may change one."""
    next_due_ms: int | None = None
    """When the next of its waiting rows is due, as far as is known; None if no row waits."""
    added_due_ms: int | None = None
    """The same, but only of the rows that began to wait after the latest read of its rows began."""
    refilling: bool = False
    is_proven: bool = False
    """Whether an attempt has succeeded, and fewer than `unproven_sinks.FAILURES_MAX` in a row have failed since."""
    failures: int = 0
    """How many attempts in a row have failed."""
    has_read_turn: bool = False
    """Whether it has waited for its turn to read a page, because its sink is unproven."""
    is_parked: bool = False
    """Whether it waits among the parked lanes of its consumer."""
    has_try_turn: bool = False
    """Whether it has waited for its turn to start an attempt, because its sink is unproven."""
    in_round: bool = False
    """Whether it waits for its turn in the rounds."""

    def moves_to(self, settings: RequestSettings, now_ms: int) -> bool:
        """Note the present settings; return whether rows must become due at `now_ms`, because they failed at a former sink.

        Deliveries in memory that have failed there are due then, too.
        """
        former, self.settings = self.settings, settings
        if former is None or former.is_same_sink(settings):
            return False
        failed = [delivery for delivery in self.held if delivery.phase is Phase.RETRYING]
        for delivery in failed:
            lifecycle.bring_forward(delivery, now_ms)
        return bool(failed) or self.next_due_ms is not None

    def unproven_pending_max(self, pending_max: int) -> int:
        """Return how many deliveries may wait in memory while the sink is unproven; `pending_max` is the bound of a proven one.

        If the consumer has many lanes and its unproven sinks fail, each lane whose sink was never tried holds one. Otherwise thousands of
        dead sinks would hold much memory, and other lanes would wait until it is free again.
        """
        consumer = self.consumer
        is_suspect = consumer.unproven.distance_s > DISTANCE_FIRST_S and len(consumer.lanes) > _FEW_LANES and not self.failures
        return 1 if is_suspect else pending_max

    def held_ids(self) -> set[bytes]:
        """Return the ids of the deliveries held in memory."""
        return {delivery.id for delivery in self.held}

    def row_waits(self, due_ms: int) -> None:
        """Note that a row waits to be read back, from `due_ms` on."""
        self.next_due_ms = earlier(self.next_due_ms, due_ms)
        self.added_due_ms = earlier(self.added_due_ms, due_ms)

    def rows_wait(self, more: int) -> None:
        """Note that so many more rows wait that were never attempted; a negative number: so many fewer."""
        self.waiting_rows += more
        self.consumer.waiting_rows += more

    def row_read(self) -> None:
        """Note that a row that was never attempted is read back."""
        self.rows_wait(-min(1, self.waiting_rows))

    def no_row_waits(self) -> None:
        """Note that no row comes before what is routed next."""
        self.spilled = False
        self.rows_wait(-self.waiting_rows)

    def failed_row_waits(self) -> None:
        """Note that a row waits for a further attempt. Beyond `FAILED_ROWS_MAX` of them the lane takes nothing new."""
        self.failed_rows += 1
        if self.failed_rows >= FAILED_ROWS_MAX and not self.is_slowed:
            self.is_slowed = True
            logger().warning(
                "lane.slowed", subscription=self.subscription_id, failed=self.failed_rows, effect="new events wait in the log meanwhile"
            )

    def failed_row_read(self) -> None:
        """Note that a row that waited for a further attempt is read back."""
        self.failed_rows = max(0, self.failed_rows - 1)
        self.is_slowed = self.is_slowed and self.failed_rows >= FAILED_ROWS_MAX // 2

    def rows_due_at(self, due_ms: int, *, all_of_them: bool) -> None:
        """Note that the ledger has brought some or all of its rows forward to `due_ms`, unless they are due earlier."""
        if self.order is not None and all_of_them:
            self.order.bring_forward(due_ms)
        elif self.order is not None:
            self.order.forget_rows()
        self.row_waits(due_ms)


class RowReads:
    """The reads of rows under way. For each it gathers the deliveries that leave memory: the rows read for these may be out of date."""

    def __init__(self) -> None:
        self._under_way: dict[int, tuple[str, set[bytes]]] = {}
        self._begun = 0

    @contextlib.contextmanager
    def track(self, subscription_id: str = "") -> Iterator[set[bytes]]:
        """Gather the ids of noted deliveries while rows of a subscription (empty: of all subscriptions) are read."""
        self._begun += 1
        number, left = self._begun, set[bytes]()
        self._under_way[number] = (subscription_id, left)
        try:
            yield left
        finally:
            del self._under_way[number]

    def note(self, delivery: Delivery) -> None:
        """Note that a delivery leaves memory, and that its row has changed while it was there."""
        for subscription_id, left in self._under_way.values():
            if subscription_id in {"", delivery.subscription_id}:
                left.add(delivery.id)


def earlier(one_ms: int | None, other_ms: int | None) -> int | None:
    """Return the earlier of two times; None means never."""
    if one_ms is None or other_ms is None:
        return other_ms if one_ms is None else one_ms
    return min(one_ms, other_ms)
