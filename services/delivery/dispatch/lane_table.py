"""Lane table: all lanes of a worker, the memory that their deliveries take, and what each lane may do now.

router → [lane_table: lane] → dispatcher

Law 1: deliveries in memory are counted. A lane takes no more once it reaches its bound, or once all lanes together reach theirs.
Law 2: a lane that may not send takes no deliveries into memory.
Law 3: a lane that holds nothing is forgotten once a new lane in its place would act the same, or its subscription is deleted.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from services.delivery.dispatch import lifecycle, rate_limit
from services.delivery.dispatch.due_clock import DueClock
from services.delivery.dispatch.fair_rounds import Consumer
from services.delivery.dispatch.lane import Lane, RowReads
from services.delivery.dispatch.lane_record import Now, row_of
from services.delivery.ledger.rows import LaneRow
from services.delivery.model import Delivery, State, SubscriptionStatus
from services.delivery.request.request_settings import Subscription
from services.runtime.clock import Clock, unix_ms

UNRECORDED_SENT_MAX = 1000
# To look up an enum's member by its class takes 0.14 µs, and this one is compared with for every delivery.
_ACTIVE = SubscriptionStatus.ACTIVE
_HELD_BYTES_MAX = 32 * 1024 * 1024
_CONSUMER_HELD_MAX = 10_000
_REFILL_ROWS_MAX = 200


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a dispatcher does at once, and how much it holds."""

    in_flight_max: int
    lane_in_flight_max: int
    lane_pending_max: int
    breaker_first_s: float
    disable_after_s: float


class LaneTable:
    """The lanes by their subscriptions' ids. It decides; the dispatcher acts."""

    def __init__(self, subscription: Callable[[str], Subscription | None], clock: Clock, due: DueClock, pending_max: int) -> None:
        self.subscription = subscription
        """Returns a subscription by its id, None if it does not exist."""
        self._clock = clock
        self.due = due
        """The clock by which rows wait."""
        self.change(pending_max)
        self._lanes: dict[str, Lane] = {}
        self.changed: dict[str, None] = {}
        """The subscriptions whose lanes have changed what the ledger keeps of them (`lane_record`)."""
        self._consumers: dict[str, Consumer] = {}
        self.row_reads = RowReads()
        """The reads of rows that are under way."""
        self.held_bytes = 0
        """About how much memory the held deliveries take."""
        self.unrecorded_sent = 0
        """How many started attempts have an end that is not in the ledger yet."""

    def change(self, pending_max: int) -> None:
        """From now on let at most `pending_max` deliveries wait in memory for a lane."""
        self._pending_max = pending_max
        self._refill_below = max(1, pending_max // 2)

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))

    def __len__(self) -> int:
        return len(self._lanes)

    def __contains__(self, lane: Lane) -> bool:
        return self._lanes.get(lane.subscription_id) is lane

    def find(self, subscription_id: str) -> Lane | None:
        """Return a subscription's lane, None if there is no lane."""
        return self._lanes.get(subscription_id)

    def lane(self, subscription_id: str) -> Lane:
        """Return a subscription's lane; make it if there is no lane."""
        lane = self._lanes.get(subscription_id)
        if lane is None:
            subscription = self.subscription(subscription_id)
            consumer_id = "" if subscription is None else subscription.consumer_id
            consumer = self._consumers.get(consumer_id)
            if consumer is None:
                consumer = self._consumers[consumer_id] = Consumer(consumer_id)
            consumer.lanes += 1
            lane = self._lanes[subscription_id] = Lane(subscription_id, consumer)
        return lane

    def now(self) -> Now:
        """Return the present time by the clocks of a lane."""
        return Now(self._clock.monotonic(), self.due.now_ms(), unix_ms(self._clock))

    def take_changed(self) -> tuple[list[LaneRow], list[str]]:
        """Return the rows of the lanes that have changed, and the ids of those that have none any more."""
        now, rows, done = self.now(), list[LaneRow](), list[str]()
        for subscription_id in self.changed:
            lane = self._lanes.get(subscription_id)
            row = row_of(subscription_id, None if lane is None else lane.sink_health, now)
            if row is None:
                done.append(subscription_id)
            else:
                rows.append(row)
        self.changed.clear()
        return rows, done

    def _forget(self, lane: Lane) -> None:
        del self._lanes[lane.subscription_id]
        lane.consumer.lanes -= 1
        if not lane.consumer.lanes:
            del self._consumers[lane.consumer.id]

    # What is held

    def has_room(self, lane: Lane, subscription: Subscription) -> bool:
        """Return whether a new delivery to the lane's subscription may wait in memory; if not, the lane is spilled from now on."""
        if lane.spilled:
            return False
        if len(lane.queue) >= self._pending_max or not self.consumer_has_room(lane.consumer) or not self._may_send(lane, subscription):
            lane.spilled = True
            return False
        return True

    def consumer_has_room(self, consumer: Consumer) -> bool:
        """Return whether one more delivery of a consumer may wait in memory: it may take as much as is free, so that others find room."""
        return consumer.held < _CONSUMER_HELD_MAX and consumer.held_bytes < _HELD_BYTES_MAX - self.held_bytes

    def hold(self, delivery: Delivery) -> None:
        """Hold a delivery in memory that is not queued yet: the caller queues it later or finishes it."""
        self.hold_in(self.lane(delivery.subscription_id), delivery)

    def hold_in(self, lane: Lane, delivery: Delivery) -> None:
        """Hold a delivery in memory, in its lane."""
        size_bytes = delivery.size_bytes
        lane.held[delivery] = None
        self.held_bytes += size_bytes
        lane.consumer.held += 1
        lane.consumer.held_bytes += size_bytes

    def holds(self, delivery: Delivery) -> bool:
        """Return whether a delivery is held in memory."""
        lane = self._lanes.get(delivery.subscription_id)
        return lane is not None and delivery in lane.held

    def held_ids(self, subscription_ids: Iterable[str]) -> set[bytes]:
        """Return the ids of all deliveries that are held in memory for these subscriptions."""
        lanes = (self._lanes.get(each) for each in subscription_ids)
        return {delivery.id for lane in lanes if lane is not None for delivery in lane.held}

    def drop(self, lane: Lane, delivery: Delivery) -> bool:
        """Stop holding a delivery; return whether it was held."""
        # A spilled delivery is not held, but its row may have been read back already: readers see a row shortly before its flush ends here.
        if delivery not in lane.held:
            return False
        size_bytes = delivery.size_bytes
        del lane.held[delivery]
        self.held_bytes -= size_bytes
        lane.consumer.held -= 1
        lane.consumer.held_bytes -= size_bytes
        return True

    def end(self, lane: Lane, delivery: Delivery, state: State, now_ms: int) -> None:
        """Bring a lane's delivery to its final state; the event that it drops takes no memory any more."""
        size_bytes = delivery.size_bytes
        lifecycle.end(delivery, state, now_ms)
        size_bytes -= delivery.size_bytes
        self.held_bytes -= size_bytes
        lane.consumer.held_bytes -= size_bytes

    def spill(self, delivery: Delivery) -> None:
        """Note that a delivery waits as a row only and is read back later."""
        lifecycle.spill(delivery)
        self.lane(delivery.subscription_id).unflushed_spills += 1

    # What a lane may do

    def sendable(self, lane: Lane) -> Subscription | None:
        """Return a lane's subscription if an attempt may start now, else None."""
        subscription = self.subscription(lane.subscription_id)
        return subscription if subscription is not None and self._may_send(lane, subscription) else None

    def _may_send(self, lane: Lane, subscription: Subscription) -> bool:
        # Most sinks have never failed: do not read the clock for them.
        return subscription.status is _ACTIVE and (lane.sink_health is None or lane.sink_health.permits(self._clock.monotonic()))

    def is_wanted(self, lane: Lane) -> bool:
        """Return whether events may still be delivered to a lane's subscription: it exists, and is not off."""
        subscription = self.subscription(lane.subscription_id)
        return subscription is not None and subscription.status is not SubscriptionStatus.OFF

    def wants_rows(self, lane: Lane, now_ms: int) -> bool:
        """Return whether rows that are due should be read back now; if there is no room, the dispatcher asks again once there is."""
        return lane.next_due_ms is not None and lane.next_due_ms <= now_ms and self.room_to_refill(lane) > 0

    def room_to_refill(self, lane: Lane) -> int:
        """Return how many rows a lane should read back now: one for a probe, else up to half its bound or `_REFILL_ROWS_MAX`.

        While memory is short, a lane that holds nothing reads back one row, so that every lane makes progress.
        """
        health = lane.sink_health
        if health is not None and health.is_open:
            return 0 if lane.queue or health.breaker.probing else 1
        if self.held_bytes >= _HELD_BYTES_MAX:
            return 0 if lane.held else 1
        return min(max(0, self._refill_below - len(lane.queue)), _REFILL_ROWS_MAX)

    def caught_up(self, lane: Lane) -> bool:
        """Return whether no due or unwritten row comes before the deliveries that are routed next; False while the breaker is open."""
        if lane.unflushed_spills or (lane.sink_health is not None and lane.sink_health.is_open):
            return False
        return lane.next_due_ms is None or lane.next_due_ms > self.due.now_ms()

    def forget_if_idle(self, lane: Lane) -> float | None:
        """Forget an idle lane if a new one would act the same or its subscription is deleted, so that memory does not grow with past lanes.

        Returns when to ask again, by the monotonic clock. Returns None if the lane is forgotten, or if some event will lead to the
        next call.
        """
        if lane.held or lane.refilling or lane.unflushed_spills:
            return None
        subscription = self.subscription(lane.subscription_id)
        if subscription is not None:
            if lane.spilled or lane.next_due_ms is not None:
                return None
            expires_at = lane.limit.expires_at
            if lane.sink_health is not None or subscription.settings.rate_per_second is not None or expires_at > 0:
                now = self._clock.monotonic()
                health_expires_at = 0.0 if lane.sink_health is None else lane.sink_health.expires_at
                if health_expires_at is None:
                    return None
                expires_at = max(expires_at, health_expires_at, now + rate_limit.full_in_s(lane, subscription, now))
                if expires_at > now:
                    return expires_at
        if lane in self:
            self._forget(lane)
        return None
