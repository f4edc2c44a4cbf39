"""Dispatch: which delivery is attempted next, and what follows from its answer.

route → lane → [dispatch] → attempt → schedule → recorder

Law 1: attempts under way, deliveries and bytes in memory, and sent-but-unrecorded work are bounded.
Law 2: lanes take turns; a lane that may not send keeps no slot and no memory beyond its bound.
Law 3: a delivery in memory is in exactly one of: a lane's queue, under way, or waiting for its flush.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from services.delivery.attempt import attempt_of, request_of
from services.delivery.breaker import Breaker
from services.delivery.lane import Lane
from services.delivery.model import Attempt, Delivery, Health, Outcome, State, Subscription
from services.delivery.schedule import Delivered, Exhausted, RetryAt, Schedule, retry_after_s, throttles
from services.delivery.timers import Timers
from services.delivery.transport import Answer, Transport
from services.runtime.clock import Clock, unix_ms
from services.runtime.logs import logger

UNRECORDED_SENT_MAX = 1000
_HELD_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a dispatcher does and holds at once."""

    in_flight_max: int
    lane_in_flight_max: int
    lane_pending_max: int
    breaker_first_s: float


class Dispatcher:
    """Starts attempts for all lanes of a worker."""

    def __init__(
        self,
        transport: Transport,
        subscription: Callable[[str], Subscription | None],
        schedule: Schedule,
        clock: Clock,
        bounds: Bounds,
    ) -> None:
        self._transport = transport
        self._subscription = subscription
        self._schedule = schedule
        self._clock = clock
        self._bounds = bounds
        self._changed: Callable[[Delivery], None]
        self._hungry: Callable[[Lane], None]
        self._timers = Timers(clock, self._ring)
        self._round: deque[Lane] = deque()
        self._lanes: dict[str, Lane] = {}
        self._held_bytes = 0
        self._in_flight = 0
        self._ended = asyncio.Event()
        self.unrecorded_sent = 0
        self.sending = True
        """False while nothing may be sent: the ledger takes no flush, or the service stops."""

    def listen(self, *, changed: Callable[[Delivery], None], hungry: Callable[[Lane], None]) -> None:
        """Say who is told of each delivery that is settled, and of lanes that want rows; before anything is held."""
        self._changed, self._hungry = changed, hungry

    async def idle(self) -> None:
        """Wait until no attempt is under way."""
        while self._in_flight:
            self._ended.clear()
            await self._ended.wait()

    def lane(self, subscription_id: str) -> Lane:
        """Return a subscription's lane, making it where there is none."""
        lane = self._lanes.get(subscription_id)
        if lane is None:
            lane = self._lanes[subscription_id] = Lane(subscription_id, Breaker(self._bounds.breaker_first_s))
        return lane

    def lanes(self) -> list[Lane]:
        """Return all lanes."""
        return list(self._lanes.values())

    # Taking deliveries in

    def has_room(self, lane: Lane) -> bool:
        """Say whether a new delivery may wait in memory; where not, the lane is spilled from now on."""
        if lane.spilled:
            return False
        if len(lane.queue) >= self._bounds.lane_pending_max or self._held_bytes >= _HELD_BYTES_MAX or not self._may_send(lane):
            lane.spilled = True
            return False
        return True

    def hold(self, delivery: Delivery) -> None:
        """Hold a delivery in memory; it is queued by `queue`, at once or once it is recorded."""
        self.lane(delivery.subscription_id).live[delivery.id] = delivery
        self._held_bytes += _size(delivery)

    def queue(self, delivery: Delivery) -> None:
        """Put a held delivery into its lane's queue."""
        lane = self.lane(delivery.subscription_id)
        lane.queue.append(delivery)
        self._join_round(lane)

    def release(self, delivery: Delivery) -> None:
        """Let go of a settled delivery that is recorded."""
        lane = self.lane(delivery.subscription_id)
        if lane.live.pop(delivery.id, None) is not None:
            self._held_bytes -= _size(delivery)
        if delivery.spilled:
            lane.unflushed_spills -= 1
        elif delivery.state is State.PENDING and (lane.next_due_ms is None or delivery.due_ms < lane.next_due_ms):
            lane.next_due_ms = delivery.due_ms
        self._wake(lane)
        self._drop_if_idle(lane)

    def _spill(self, lane: Lane) -> None:
        """Let go of what waits in memory; its rows are read back once the lane may send again."""
        lane.spilled = True
        while lane.queue:
            delivery = lane.queue.popleft()
            if delivery.recorded:
                del lane.live[delivery.id]
                self._held_bytes -= _size(delivery)
            else:
                self.spill(delivery)
                self._settle(delivery)

    def spill(self, delivery: Delivery) -> None:
        """Note that a delivery is to be a row only, to be read back later."""
        delivery.settled = delivery.spilled = True
        self.lane(delivery.subscription_id).unflushed_spills += 1

    def _settle(self, delivery: Delivery) -> None:
        delivery.settled = True
        self._changed(delivery)

    # Starting attempts

    def pump(self) -> None:
        """Start attempts as long as there is room."""
        while self._round and self.sending and self._in_flight < self._bounds.in_flight_max:
            lane = self._round.popleft()
            lane.ready = False
            if not self._may_start(lane):
                continue
            delivery = lane.queue[0]
            if not delivery.recorded and self.unrecorded_sent >= UNRECORDED_SENT_MAX:
                self._join_round(lane)
                return
            lane.queue.popleft()
            self._start(lane, delivery)
            self._join_round(lane)
            if lane.spilled and len(lane.queue) < self._bounds.lane_pending_max // 2:
                self._hungry(lane)

    def _join_round(self, lane: Lane) -> None:
        if not lane.ready and lane.queue and lane.in_flight < self._bounds.lane_in_flight_max:
            lane.ready = True
            self._round.append(lane)

    def _may_send(self, lane: Lane) -> bool:
        subscription = self._subscription(lane.subscription_id)
        now = self._clock.monotonic()
        return (
            subscription is not None and subscription.health is Health.ACTIVE and lane.breaker.permits(now) and now >= lane.throttled_until
        )

    def _may_start(self, lane: Lane) -> bool:
        if not lane.queue or lane.in_flight >= self._bounds.lane_in_flight_max:
            return False
        if self._may_send(lane):
            return True
        self._look_again(lane)
        return False

    def _start(self, lane: Lane, delivery: Delivery) -> None:
        subscription = self._subscription(lane.subscription_id)
        if subscription is None:
            self.finish(delivery, State.CANCELLED)
            return
        now_ms, began = unix_ms(self._clock), self._clock.monotonic()
        try:
            request = request_of(delivery, subscription, now_ms)
        except ValueError as error:
            logger().error("delivery.unencodable", event_id=delivery.event_id, subscription=subscription.id, reason=str(error))
            self.give_up(delivery, f"the event could not be encoded: {error}")
            return
        lane.in_flight += 1
        self._in_flight += 1
        lane.breaker.started()
        if not delivery.recorded:
            self.unrecorded_sent += 1
            if delivery.chunk is not None:
                delivery.chunk.sent += 1
        self._transport.send(request, lambda answer: self._answered(lane, delivery, now_ms, began, answer))

    # Taking answers

    def _answered(self, lane: Lane, delivery: Delivery, started_ms: int, began: float, answer: Answer) -> None:
        lane.in_flight -= 1
        self._in_flight -= 1
        self._ended.set()
        now, now_ms = self._clock.monotonic(), unix_ms(self._clock)
        delivery.attempts.append(attempt_of(answer, started_ms, int((now - began) * 1000)))
        self._judge_endpoint(lane, answer, now, now_ms)
        wait_s = retry_after_s(answer.retry_after, now_ms) if answer.retry_after else None
        decision = self._schedule.after(
            answer.outcome,
            attempts=len(delivery.attempts),
            accepted_ms=delivery.accepted_ms,
            now_ms=now_ms,
            chance=random.random(),  # noqa: S311 - jitter
            retry_after_s=wait_s,
        )
        match decision:
            case Delivered():
                self.finish(delivery, State.DELIVERED)
            case RetryAt(due_ms) if self._subscription(lane.subscription_id) is not None:
                _log_failure(delivery, answer, next_s=(due_ms - now_ms) / 1000)
                delivery.due_ms = due_ms
                self._settle(delivery)
            case RetryAt():
                self.finish(delivery, State.CANCELLED)
            case Exhausted(reason):
                _log_failure(delivery, answer, exhausted=reason)
                self.finish(delivery, State.EXHAUSTED)
        self._join_round(lane)
        self.pump()

    def _judge_endpoint(self, lane: Lane, answer: Answer, now: float, now_ms: int) -> None:
        if answer.outcome is Outcome.DELIVERED:
            lane.breaker.succeeded()
            return
        if throttles(answer.status) and (wait_s := retry_after_s(answer.retry_after, now_ms)):
            lane.throttled_until = max(lane.throttled_until, now + wait_s)
        if lane.breaker.failed(now, random.random()) and lane.breaker.open_until is not None:  # noqa: S311 - jitter
            logger().warning("lane.opened", subscription=lane.subscription_id, for_s=round(lane.breaker.open_until - now, 1))
            self._spill(lane)
            self._timers.at(lane.breaker.open_until, lane)

    def finish(self, delivery: Delivery, state: State) -> None:
        """Bring a held delivery to its end."""
        delivery.state = state
        delivery.finished_ms = unix_ms(self._clock)
        self._settle(delivery)

    def give_up(self, delivery: Delivery, why: str) -> None:
        """End a held delivery that cannot be attempted."""
        delivery.attempts.append(Attempt(unix_ms(self._clock), 0, Outcome.PROTOCOL, 0, why, ""))
        self.finish(delivery, State.EXHAUSTED)

    # Lanes over time

    def cancel(self, subscription_id: str) -> None:
        """End all that waits in memory for a subscription; what is under way ends by itself."""
        lane = self._lanes.get(subscription_id)
        if lane is not None:
            while lane.queue:
                self.finish(lane.queue.popleft(), State.CANCELLED)

    def revive(self, subscription_id: str) -> None:
        """Look at a lane again after its subscription has changed."""
        lane = self._lanes.get(subscription_id)
        if lane is not None:
            self._wake(lane)
            self.pump()

    def _ring(self, lane: Lane) -> None:
        self._wake(lane)
        self.pump()

    def _wake(self, lane: Lane) -> None:
        """Go on with a lane as far as it may: queue, rows that are due, or a later look."""
        self._join_round(lane)
        if self._may_send(lane):
            now_ms = unix_ms(self._clock)
            due = lane.next_due_ms is not None and lane.next_due_ms <= now_ms
            if (due or lane.spilled) and len(lane.queue) < self._bounds.lane_pending_max // 2:
                self._hungry(lane)
            elif lane.next_due_ms is not None:
                self._timers.at(self._clock.monotonic() + max(0, lane.next_due_ms - now_ms) / 1000, lane)
        else:
            self._look_again(lane)

    def _look_again(self, lane: Lane) -> None:
        now = self._clock.monotonic()
        waits = [when for when in (lane.breaker.open_until, lane.throttled_until) if when is not None and when > now]
        if waits:
            self._timers.at(max(waits), lane)

    def room_to_refill(self, lane: Lane) -> int:
        """Return how many rows a lane should read back now: one for a probe, else up to half its bound."""
        if lane.breaker.open_until is not None:
            return 0 if lane.queue else 1
        return max(0, self._bounds.lane_pending_max // 2 - len(lane.queue))

    def refilled(self, lane: Lane, next_due_ms: int | None, *, caught_up: bool) -> None:
        """Note what is known of a lane's rows after some were read back."""
        lane.next_due_ms = next_due_ms
        if caught_up and not lane.unflushed_spills and lane.breaker.open_until is None:
            lane.spilled = False
        if not lane.spilled:
            self._wake(lane)
        else:
            self._join_round(lane)
        self._drop_if_idle(lane)
        self.pump()

    def look_again_in(self, lane: Lane, delay_s: float) -> None:
        """Wake a lane after a while: its rows could not be read back now."""
        self._timers.at(self._clock.monotonic() + delay_s, lane)

    def close(self) -> None:
        """Start nothing more."""
        self.sending = False
        self._timers.close()

    def _drop_if_idle(self, lane: Lane) -> None:
        """Forget a lane that nothing is known of, so that memory follows what is going on."""
        idle = not (lane.live or lane.spilled or lane.refilling or lane.unflushed_spills)
        if idle and lane.next_due_ms is None and lane.breaker.open_until is None and not lane.breaker.failures:
            self._lanes.pop(lane.subscription_id, None)


def _size(delivery: Delivery) -> int:
    return len(delivery.event.record.event) + 500 if delivery.event is not None else 500


def _log_failure(delivery: Delivery, answer: Answer, **fields: object) -> None:
    logger().info(
        "attempt.failed",
        subscription=delivery.subscription_id,
        event_id=delivery.event_id,
        attempt=len(delivery.attempts),
        outcome=answer.outcome.name.lower(),
        status=answer.status,
        **fields,
    )
