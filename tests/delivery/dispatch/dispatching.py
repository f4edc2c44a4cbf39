"""Dispatching: a dispatcher with a sender in memory, and everything that it needs beside it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from services.delivery.dispatch.dispatcher import Dispatcher
from services.delivery.dispatch.due_clock import DueClock
from services.delivery.dispatch.lane import Lane
from services.delivery.dispatch.lane_table import Bounds, LaneTable
from services.delivery.dispatch.retry_policy import RetryPolicy
from services.delivery.model import Attempt, Delivery
from services.delivery.request.request_settings import Subscription
from services.delivery.transport.protocol import WITHDRAWN, Answer, Outcome
from services.delivery.worker.backpressure import Backpressure
from services.delivery.worker.unflushed_deliveries import UnflushedDeliveries
from services.runtime.clock import Clock, SystemClock

ACKNOWLEDGED = Answer(Outcome.DELIVERED, 0, "", b"", "")
EXPIRED = Answer(Outcome.TIMEOUT, 0, "the reader did not acknowledge it in time", b"", "")
BOUNDS = Bounds(24, 8, 8, 30.0, 120 * 3600.0)
EXPIRY_S = 3600.0


@dataclass
class Reader:
    """A way out to a reader that pulls: it takes deliveries while it is there, and acknowledges each by hand."""

    is_there: bool = False
    handed_out: dict[bytes, tuple[Delivery, Callable[[Answer], None]]] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    closed: bool = False
    _waiting: dict[str, Callable[[str], None]] = field(default_factory=dict)

    def fresh(self) -> bool:
        """See `Sender.fresh`."""
        return True

    def may_send(self, subscription: Subscription, ready: Callable[[str], None]) -> bool:
        """See `Sender.may_send`: only a reader that is there gets anything."""
        if not self.is_there:
            self._waiting[subscription.id] = ready
        return self.is_there

    def send(self, delivery: Delivery, subscription: Subscription, now_ms: int, done: Callable[[Answer], None]) -> None:
        """See `Sender.send`."""
        assert self.is_there, (subscription.id, now_ms)
        self.handed_out[delivery.id] = (delivery, done)

    def withdraw(self, subscription_id: str) -> None:
        """See `Sender.withdraw`: what is handed out has begun."""
        assert subscription_id

    def withdraw_all(self, consumer_id: str = "") -> None:
        """See `Sender.withdraw_all`."""

    def forget(self, subscription_id: str) -> None:
        """See `Sender.forget`."""
        self.forgotten.append(subscription_id)
        self._waiting.pop(subscription_id, None)

    def close(self) -> None:
        """See `Sender.close`."""
        self.closed = True

    def come(self) -> None:
        """Let the reader come, and ask for what there is."""
        self.is_there = True
        waiting, self._waiting = self._waiting, {}
        for subscription_id, ready in waiting.items():
            ready(subscription_id)

    def leave(self) -> None:
        """Let the reader go without a word: what it has got and not acknowledged counts as not handed out."""
        self.is_there = False
        for delivery_id in list(self.handed_out):
            self.answer(delivery_id, WITHDRAWN)

    def answer(self, delivery_id: bytes, answer: Answer) -> None:
        """Answer one delivery that is handed out."""
        self.handed_out.pop(delivery_id)[1](answer)


@dataclass
class ToldOfSinks:
    """What a dispatcher has told of sinks."""

    told: list[tuple[str, str]] = field(default_factory=list)
    """What happened, and the subscription's id."""

    def gone(self, subscription: Subscription) -> None:
        """See `SinkTransitions.gone`."""
        self.told.append(("gone", subscription.id))

    def failing(self, subscription: Subscription, since_ms: int, failures: int, last: Attempt) -> None:
        """See `SinkTransitions.failing`."""
        assert since_ms <= last.started_ms + last.duration_ms + 1000
        assert failures > 0
        self.told.append(("failing", subscription.id))

    def recovered(self, subscription: Subscription, failing_since_ms: int) -> None:
        """See `SinkTransitions.recovered`."""
        assert failing_since_ms
        self.told.append(("recovered", subscription.id))

    def failed_too_long(self, subscription: Subscription, since_ms: int, last: Attempt) -> None:
        """See `SinkTransitions.failed_too_long`."""
        assert since_ms <= last.started_ms
        self.told.append(("failed too long", subscription.id))


@dataclass
class Dispatching:
    """A dispatcher, its way out, and what it has told."""

    sender: Reader = field(default_factory=Reader)
    clock: Clock = field(default_factory=SystemClock)
    subscription: Subscription | None = None
    """The only subscription that there is."""
    rows_due: list[Lane] = field(default_factory=list)
    pages_due: list[Lane] = field(default_factory=list)
    sinks: ToldOfSinks = field(default_factory=ToldOfSinks)

    def __post_init__(self) -> None:
        lanes = LaneTable(
            self._find, self.clock, DueClock(self.clock, EXPIRY_S), BOUNDS.lane_pending_max, is_consumer_paused=lambda _id: False
        )
        self.queue = UnflushedDeliveries(lanes, Backpressure(), self.clock)
        self.dispatcher = Dispatcher(
            self.sender,
            lanes,
            RetryPolicy((1.0,), EXPIRY_S),
            self.clock,
            BOUNDS,
            settled=self.queue.add_settled,
            rows_due=self.rows_due.append,
            page_due=self.pages_due.append,
            due_now=self.queue.add_due_now,
            sinks=self.sinks,
        )

    def _find(self, subscription_id: str) -> Subscription | None:
        return self.subscription if self.subscription is not None and self.subscription.id == subscription_id else None

    @property
    def settled(self) -> list[Delivery]:
        """The deliveries that wait for a flush, in order."""
        return list(self.queue.changed)
