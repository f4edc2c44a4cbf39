"""Lanes: all lanes of a worker, what is held of their deliveries, and what each may do now.

route → [lanes: lane] → dispatch

Law 1: what is held in memory is counted; a lane beyond its bound, or all of them beyond theirs, take no more.
Law 2: a lane that may not send takes none either, and one that nothing is known of is forgotten.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from services.delivery.dispatch import pace
from services.delivery.dispatch.due_clock import DueClock
from services.delivery.dispatch.lane import Lane, Readings
from services.delivery.model import Delivery, Health
from services.delivery.request.settings import Subscription
from services.runtime.clock import Clock
from services.runtime.fair_semaphore import Share

_HELD_BYTES_MAX = 16 * 1024 * 1024
_REFILL_ROWS_MAX = 200


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a dispatcher does and holds at once."""

    in_flight_max: int
    lane_in_flight_max: int
    lane_pending_max: int
    breaker_first_s: float
    token_calls: Share


class Lanes:
    """The lanes by their subscriptions. Decides; the dispatcher acts."""

    def __init__(self, subscription: Callable[[str], Subscription | None], clock: Clock, due: DueClock, pending_max: int) -> None:
        self._subscription = subscription
        self._clock = clock
        self._due = due
        self.change(pending_max)
        self._lanes: dict[str, Lane] = {}
        self.readings = Readings()
        """The readings of rows that are under way."""
        self.held_bytes = 0
        """About how much the events held in memory take."""

    def change(self, pending_max: int) -> None:
        """Hold so many deliveries of a lane in memory from now on."""
        self._pending_max = pending_max
        self._refill_below = max(1, pending_max // 2)

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))

    def __len__(self) -> int:
        return len(self._lanes)

    def __contains__(self, lane: Lane) -> bool:
        return self._lanes.get(lane.subscription_id) is lane

    def find(self, subscription_id: str) -> Lane | None:
        """Return a subscription's lane, None where there is none."""
        return self._lanes.get(subscription_id)

    def lane(self, subscription_id: str) -> Lane:
        """Return a subscription's lane, making it where there is none."""
        lane = self._lanes.get(subscription_id)
        if lane is None:
            lane = self._lanes[subscription_id] = Lane(subscription_id)
        return lane

    # What is held

    def has_room(self, lane: Lane, subscription: Subscription) -> bool:
        """Say whether a new delivery to the lane's subscription may wait in memory; where not, the lane is spilled from now on."""
        if lane.spilled:
            return False
        full = len(lane.queue) >= self._pending_max or self.held_bytes >= _HELD_BYTES_MAX
        if full or not self._may_send(lane, subscription):
            lane.spilled = True
            return False
        return True

    def hold(self, delivery: Delivery) -> None:
        """Hold a delivery in memory; it is queued later, once it is recorded, or finished."""
        self.lane(delivery.subscription_id).live[delivery.id] = delivery
        self.held_bytes += delivery.size_bytes

    def holds(self, subscription_id: str, delivery_id: bytes) -> bool:
        """Say whether a delivery is held in memory."""
        lane = self._lanes.get(subscription_id)
        return lane is not None and delivery_id in lane.live

    def let_go(self, lane: Lane, delivery: Delivery) -> bool:
        """Hold a delivery no longer; says whether it was held."""
        # A spilled one is not held, but its row may be back already: it is seen a moment before its flush is heard of.
        if lane.live.get(delivery.id) is not delivery:
            return False
        del lane.live[delivery.id]
        self.held_bytes -= delivery.size_bytes
        return True

    def has_ended(self, delivery: Delivery) -> None:
        """Let go of the event of a held delivery that has ended: of that, only the row is wanted."""
        self.held_bytes -= delivery.size_bytes
        delivery.event = None
        self.held_bytes += delivery.size_bytes

    def spill(self, delivery: Delivery) -> None:
        """Note that a delivery is to be a row only, to be read back later."""
        delivery.settled = delivery.spilled = True
        self.lane(delivery.subscription_id).unflushed_spills += 1

    # What a lane may do

    def sendable(self, lane: Lane) -> Subscription | None:
        """Return a lane's subscription where an attempt may start now, else None."""
        subscription = self._subscription(lane.subscription_id)
        return subscription if subscription is not None and self._may_send(lane, subscription) else None

    def _may_send(self, lane: Lane, subscription: Subscription) -> bool:
        # Most sinks have given no trouble: time need not be asked for.
        return subscription.health is Health.ACTIVE and (lane.trouble is None or lane.trouble.permits(self._clock.monotonic()))

    def is_gone(self, lane: Lane) -> bool:
        """Say whether nothing is delivered to a lane's subscription any more."""
        subscription = self._subscription(lane.subscription_id)
        return subscription is None or subscription.health is Health.OFF

    def wants_rows(self, lane: Lane, now_ms: int) -> bool:
        """Say whether rows that are due should be read back; where there is no room, it is asked again once there is."""
        return lane.next_due_ms is not None and lane.next_due_ms <= now_ms and self.room_to_refill(lane) > 0

    def room_to_refill(self, lane: Lane) -> int:
        """Return how many rows a lane should read back now: one for a probe, else up to half its bound.

        While memory is short, one by one: a lane that holds nothing always gets on.
        """
        trouble = lane.trouble
        if trouble is not None and trouble.is_open:
            return 0 if lane.queue or trouble.breaker.probing else 1
        if self.held_bytes >= _HELD_BYTES_MAX:
            return 0 if lane.live else 1
        return min(max(0, self._refill_below - len(lane.queue)), _REFILL_ROWS_MAX)

    def caught_up(self, lane: Lane) -> bool:
        """Say whether no row stands before what is routed from now on."""
        if lane.unflushed_spills or (lane.trouble is not None and lane.trouble.is_open):
            return False
        return lane.next_due_ms is None or lane.next_due_ms > self._due.now_ms()

    def forget_if_idle(self, lane: Lane) -> float | None:
        """Forget a lane that nothing is known of, or whose subscription is deleted, so that memory follows what is going on.

        Returns when to ask again, by the monotonic clock; None where it is forgotten, or something happens to it before.
        """
        if lane.live or lane.refilling or lane.unflushed_spills:
            return None
        subscription = self._subscription(lane.subscription_id)
        if subscription is not None:
            if lane.spilled or lane.next_due_ms is not None:
                return None
            if lane.trouble is not None or subscription.terms.rate_per_second is not None:
                now = self._clock.monotonic()
                over_at = 0.0 if lane.trouble is None else lane.trouble.over_at
                if over_at is None:
                    return None
                over_at = max(over_at, now + pace.rested_in_s(lane, subscription, now))
                if over_at > now:
                    return over_at
        self._lanes.pop(lane.subscription_id, None)
        return None
