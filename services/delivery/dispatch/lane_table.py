"""Lane table: all lanes of a worker, the memory that their deliveries take, and what each lane may do now.

router → [lane_table: lane] → dispatcher

Law 1: deliveries in memory are counted. A lane takes no more once it reaches its bound, or once all lanes together reach theirs.
Law 2: a lane that is not active, or whose breaker is open, takes no routed deliveries into memory.
Law 3: a lane that holds nothing is forgotten once a new lane in its place would act the same, or its subscription is deleted.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from services.delivery.dispatch import lifecycle, rate_limit
from services.delivery.dispatch.due_clock import DueClock
from services.delivery.dispatch.fair_rounds import Consumer
from services.delivery.dispatch.key_order import KeyOrder
from services.delivery.dispatch.lane import Lane, RowReads
from services.delivery.dispatch.lane_record import Now, health_of, row_of
from services.delivery.dispatch.owed_ranges import HANDED_MAX
from services.delivery.ledger.rows import LaneRow
from services.delivery.model import Chunk, Delivery, Phase, State, SubscriptionStatus
from services.delivery.request.request_settings import Subscription
from services.runtime.clock import Clock, unix_ms

UNRECORDED_SENT_MAX = 1000
# To look up an enum's member by its class takes 0.14 µs, and this one is compared with for every delivery.
_ACTIVE = SubscriptionStatus.ACTIVE
_QUEUED, _RELEASED = Phase.QUEUED, Phase.RELEASED
_HELD_BYTES_MAX = 32 * 1024 * 1024
_CONSUMER_HELD_MAX = 10_000
_REFILL_ROWS_MAX = 200
# A page is worth its call to the log if it may bring so many.
_PAGE_MIN = 100
# An unproven sink may take nothing: read little for it.
_UNPROVEN_ROOM = 4
CONSUMER_WAITING_ROWS_MAX = 10_000
"""How many rows of one consumer may wait that were never attempted; beyond that, its lanes go behind."""


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

    def __init__(
        self,
        subscription: Callable[[str], Subscription | None],
        clock: Clock,
        due: DueClock,
        pending_max: int,
        *,
        is_consumer_paused: Callable[[str], bool],
    ) -> None:
        self.subscription = subscription
        """Returns a subscription by its id, None if it does not exist."""
        self._is_consumer_paused = is_consumer_paused
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
        self.rows_are_known = False
        """Whether every lane with rows exists; False until the rows of an earlier process are taken up."""
        self.held_bytes = 0
        """About how much memory the held deliveries take."""
        self.unrecorded_sent = 0
        """How many started attempts have an end that is not in the ledger yet."""
        self.unrecorded_ended = 0
        """How many of these have ended."""
        self.routed_max = 0
        """How many deliveries may be routed and not recorded at the moment; consumers share them. 0: consumers share nothing."""

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
                consumer = self._consumers[consumer_id] = Consumer(consumer_id, is_paused=self._is_consumer_paused(consumer_id))
            lane = self._lanes[subscription_id] = Lane(subscription_id, consumer)
            consumer.lanes[lane] = None
            lane.settings = None if subscription is None else subscription.settings
            if subscription is not None and subscription.settings.is_ordered:
                # A lane that is made later has no row: a lane with rows is not forgotten.
                lane.order = KeyOrder(is_complete=self.rows_are_known)
        return lane

    def now(self) -> Now:
        """Return the present time by the clocks of a lane."""
        return Now(self._clock.monotonic(), self.due.now_ms(), unix_ms(self._clock))

    def restore(self, rows: Iterable[LaneRow], breaker_first_s: float) -> Iterator[Lane]:
        """Give lanes what an earlier process has kept of them, and yield these lanes."""
        now = self.now()
        for row in rows:
            subscription = self.subscription(row.subscription_id)
            health = None if subscription is None else health_of(row, subscription.settings, breaker_first_s, now)
            if health is None:
                self.changed[row.subscription_id] = None
                continue
            health.is_recorded = True
            lane = self.lane(row.subscription_id)
            lane.sink_health = health
            yield lane

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
        lane.rows_wait(-lane.waiting_rows)
        del self._lanes[lane.subscription_id]
        del lane.consumer.lanes[lane]
        if not lane.consumer.lanes:
            del self._consumers[lane.consumer.id]

    def pause_consumer(self, consumer_id: str, *, paused: bool) -> list[Lane]:
        """Let none of a consumer's lanes send from now on, or let them send again; return its lanes."""
        consumer = self._consumers.get(consumer_id)
        if consumer is None:
            return []
        consumer.is_paused = paused
        return list(consumer.lanes)

    # What is held

    def has_room(self, lane: Lane, subscription: Subscription) -> bool:
        """Return whether a new delivery to the lane's subscription may wait in memory; if not, the lane goes behind."""
        if lane.spilled or lane.is_slowed or not self.consumer_has_room(lane.consumer):
            return False
        if len(lane.queue) + len(lane.joined) >= (self._pending_max if lane.is_proven else lane.unproven_pending_max(self._pending_max)):
            return False
        # The same as `_is_blocked`, without a call: this runs for every delivery.
        if subscription.status is not _ACTIVE or lane.consumer.is_paused:
            return False
        return lane.sink_health is None or not lane.sink_health.is_open

    def has_room_for_key(self, lane: Lane, order: KeyOrder) -> bool:
        """Return whether an ordered lane, which has room otherwise, may take one more delivery that waits for an earlier one."""
        return not order.is_full and len(lane.queue) + len(lane.joined) + order.waiting < self._pending_max

    def takes_row(self, lane: Lane, subscription: Subscription) -> bool:
        """Return whether a new delivery for which there is no room may wait as a row: its lane may not send, and has few rows so far."""
        return _is_blocked(lane, subscription) and self._may_have_rows(lane, 1) and (lane.order is None or not lane.order.is_full)

    def takes_rows_of_queue(self, lane: Lane) -> bool:
        """Return whether all that a lane has queued may wait as rows."""
        return not lane.ranges and self._may_have_rows(lane, len(lane.queue) + _waiting(lane))

    def _may_have_rows(self, lane: Lane, more: int) -> bool:
        return lane.waiting_rows + more <= self._pending_max and lane.consumer.waiting_rows + more <= CONSUMER_WAITING_ROWS_MAX

    def consumer_has_room(self, consumer: Consumer) -> bool:
        """Return whether one more delivery of a consumer may wait in memory.

        It may take as much memory as is free, so that others find room. Of what may be routed and not recorded, it may take two parts of
        n + 1 if there are n consumers, and everything if it is alone.
        """
        if consumer.held >= _CONSUMER_HELD_MAX or consumer.held_bytes >= _HELD_BYTES_MAX - self.held_bytes:
            return False
        consumers = len(self._consumers)
        return consumers <= 1 or not self.routed_max or (consumer.held - consumer.handed) * (consumers + 1) < 2 * self.routed_max

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

    def cancel(self, lane: Lane, delivery: Delivery, now_ms: int) -> None:
        """Cancel a lane's delivery that waits for its flush. One that routing made a row at once is not held, and takes no memory."""
        if delivery not in lane.held:
            return lifecycle.end(delivery, State.CANCELLED, now_ms)
        return self.end(lane, delivery, State.CANCELLED, now_ms)

    def let_go(self, lane: Lane, delivery: Delivery) -> None:
        """Leave a queued delivery to its lane's range."""
        self.drop(lane, delivery)
        lifecycle.let_go(delivery)

    def spill(self, delivery: Delivery) -> None:
        """Note that a delivery waits as a row only and is read back later."""
        lifecycle.spill(delivery)
        lane = self.lane(delivery.subscription_id)
        lane.unflushed_spills += 1
        lane.rows_wait(1)

    def is_stuck(self, chunk: Chunk) -> bool:
        """Return whether all unsettled deliveries of a chunk wait for their own lanes or consumers, and not for this machine."""
        return self._all_wait(chunk, lambda lane: not lane.in_round or lane.consumer.is_held_back)

    def waits_for_failing_sinks(self, chunk: Chunk) -> bool:
        """Return whether all unsettled deliveries of a chunk are parked for sinks that have failed."""
        return self._all_wait(chunk, lambda lane: lane.is_parked and lane.failures > 0)

    def _all_wait(self, chunk: Chunk, waits: Callable[[Lane], bool]) -> bool:
        for delivery in chunk.deliveries:
            if delivery.phase in lifecycle.SETTLED or delivery.phase is _RELEASED:
                continue
            lane = self._lanes.get(delivery.subscription_id) if delivery.phase is _QUEUED else None
            if lane is None or not waits(lane):
                return False
        return True

    # What a lane may do

    def sendable(self, lane: Lane) -> Subscription | None:
        """Return a lane's subscription if an attempt may start now, else None."""
        subscription = self.subscription(lane.subscription_id)
        return subscription if subscription is not None and self._may_send(lane, subscription) else None

    def _may_send(self, lane: Lane, subscription: Subscription) -> bool:
        if subscription.status is not _ACTIVE or lane.consumer.is_paused:
            return False
        # Most sinks have never failed: do not read the clock for them.
        return lane.sink_health is None or lane.sink_health.permits(self._clock.monotonic())

    def is_active(self, lane: Lane) -> bool:
        """Return whether a lane's subscription is active and its consumer is not paused."""
        return (found := self.subscription(lane.subscription_id)) is not None and found.status is _ACTIVE and not lane.consumer.is_paused

    def is_wanted(self, lane: Lane) -> bool:
        """Return whether events may still be delivered to a lane's subscription: it exists, and is not off."""
        subscription = self.subscription(lane.subscription_id)
        return subscription is not None and subscription.status is not SubscriptionStatus.OFF

    def wants_rows(self, lane: Lane, now_ms: int) -> bool:
        """Return whether rows that are due should be read back now; if there is no room, the dispatcher asks again once there is."""
        if lane.next_due_ms is None or lane.next_due_ms > now_ms:
            return False
        return self.room_to_refill(lane) > 0 or (lane.order is not None and not lane.order.is_complete)

    def room_to_refill(self, lane: Lane) -> int:
        """Return how many rows a lane should read back now: one for a probe, else up to half its bound or `_REFILL_ROWS_MAX`.

        While its consumer's share of memory is used up, a lane that holds nothing reads back one row, so that every lane makes progress.
        """
        return min(self._room(lane), _REFILL_ROWS_MAX)

    def room_for_page(self, lane: Lane) -> int:
        """Return how many deliveries of its first range a lane should be handed now; 0 also if so few fit that a page is not worth it."""
        owed = lane.ranges[0]
        # Rows above a range that has an end wait until the range is read. So the range is read, however much waits.
        if lane.is_slowed or (lane.order is not None and lane.order.is_full and owed.until is None):
            return 0
        room = min(self._room(lane), HANDED_MAX - len(owed.handed))
        return room if room >= min(_PAGE_MIN, self._refill_below) or _holds_nothing(lane) else 0

    def _room(self, lane: Lane) -> int:
        health = lane.sink_health
        if health is not None and health.is_open:
            return 0 if lane.queue or health.breaker.probing else 1
        if not lane.is_proven:
            return _UNPROVEN_ROOM if _holds_nothing(lane) else 0
        if lane.consumer.held_bytes >= _HELD_BYTES_MAX - self.held_bytes:
            return 1 if _holds_nothing(lane) else 0
        return max(0, self._refill_below - len(lane.queue) - _waiting(lane))

    def wants_page(self, lane: Lane) -> bool:
        """Return whether a page of the lane's first range should be read now."""
        owed = lane.ranges[0]
        return not lane.paging and not owed.is_waiting and self.room_for_page(lane) > 0

    def has_caught_up(self, lane: Lane) -> bool:
        """Return whether nothing waits for a lane that would come before the events routed next, but for its range."""
        return not lane.spilled and not lane.is_slowed and not self._due_rows_wait(lane) and self.sendable(lane) is not None

    def has_no_due_row(self, lane: Lane) -> bool:
        """Return whether no due or unwritten row comes before what is routed next; False while the breaker is open."""
        return not self._due_rows_wait(lane) and not (lane.sink_health is not None and lane.sink_health.is_open)

    def _due_rows_wait(self, lane: Lane) -> bool:
        # The rows of an ordered lane come in the order of their keys, whatever is routed or read meanwhile.
        if lane.unflushed_spills > 0 and lane.order is None:
            return True
        return lane.next_due_ms is not None and lane.next_due_ms <= self.due.now_ms()

    @property
    def joins_below(self) -> int:
        """How many deliveries may be left of a range when its lane joins: half of what may wait in memory."""
        return self._refill_below

    def forget_if_idle(self, lane: Lane) -> float | None:
        """Forget an idle lane if a new one would act the same or its subscription is deleted, so that memory does not grow with past lanes.

        Returns when to ask again, by the monotonic clock. Returns None if the lane is forgotten, or if some event will lead to the
        next call.
        """
        if lane.held or lane.refilling or lane.unflushed_spills or lane.paging:
            return None
        subscription = self.subscription(lane.subscription_id)
        if subscription is not None:
            if lane.spilled or lane.ranges or lane.next_due_ms is not None or lane.order:
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


def _holds_nothing(lane: Lane) -> bool:
    """Return whether a lane holds nothing in memory but what waits until its range is read."""
    return len(lane.held) == len(lane.joined)


def _waiting(lane: Lane) -> int:
    """Return how many deliveries wait in memory for an earlier one of their keys."""
    return 0 if lane.order is None else lane.order.waiting


def _is_blocked(lane: Lane, subscription: Subscription) -> bool:
    """Return whether a lane may send nothing for longer: its subscription is not active, its consumer is paused, or its breaker is open."""
    return subscription.status is not _ACTIVE or lane.consumer.is_paused or (lane.sink_health is not None and lane.sink_health.is_open)
