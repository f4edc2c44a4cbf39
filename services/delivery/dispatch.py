"""Dispatch: which delivery is attempted next, and what follows from its answer.

route → lane → [dispatch] → attempt → schedule → recorder

Law 1: attempts under way, deliveries and bytes in memory, and sent-but-unrecorded work are bounded.
Law 2: lanes take turns; a lane that may not send keeps no slot and no memory beyond its bound.
Law 3: a delivery in memory is in exactly one of: a lane's queue, under way, or waiting for its flush.
"""

import asyncio
import functools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from services.delivery import pace
from services.delivery.attempt import attempt_of, log_failure
from services.delivery.breaker import Breaker
from services.delivery.due import DueClock
from services.delivery.lane import Lane, Readings, earlier
from services.delivery.model import Attempt, Delivery, Health, Outcome, State, Subscription
from services.delivery.push import Pusher
from services.delivery.schedule import GONE, Exhausted, RetryAt, Schedule, pause_s, retry_after_s, throttles
from services.delivery.terms import Terms
from services.delivery.timers import Timers
from services.delivery.transport import Answer, Transport
from services.runtime import crash
from services.runtime.clock import Clock, unix_ms
from services.runtime.logs import logger

UNRECORDED_SENT_MAX = 1000
_HELD_BYTES_MAX = 16 * 1024 * 1024
_REFILL_ROWS_MAX = 200
# A sink that is gone is left alone for so long, unless its subscription changes; the registry may disable it meanwhile.
_GONE_PAUSE_S = 3600.0


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
        origin: str,
    ) -> None:
        """`origin` is the name by which sinks know this system, "" for none."""
        self._pusher = Pusher(transport, subscription, clock, origin, self._token_came)
        self._subscription = subscription
        self._schedule = schedule
        self._clock = clock
        self.due = DueClock(clock)
        """The time line of all that waits."""
        self._bounds = bounds
        self._changed: Callable[[Delivery], None]
        self._hungry: Callable[[Lane], None]
        self._gone: Callable[[str, int], None]
        self._timers = Timers(clock, self._ring)
        self._refill_below = max(1, bounds.lane_pending_max // 2)
        self._round: deque[Lane] = deque()
        self._lanes: dict[str, Lane] = {}
        self._ended = asyncio.Event()
        self._closed = False
        self.readings = Readings()
        """The readings of rows that are under way."""
        self.held_bytes = 0
        """About how much the events held in memory take."""
        self.in_flight = 0
        """How many attempts are under way."""
        self.unrecorded_sent = 0
        """How many attempts were started of which the ledger does not know the end."""
        self.recordable = True
        """False while the ledger takes no flush: nothing is sent then."""

    def listen(self, *, changed: Callable[[Delivery], None], hungry: Callable[[Lane], None], gone: Callable[[str, int], None]) -> None:
        """Say who is told of each delivery that is settled, of lanes that want rows, and of sinks that are gone; before anything is held.

        Of a sink that has answered 410, its subscription and the revision that it was called by are told.
        """
        self._changed, self._hungry, self._gone = changed, hungry, gone

    @property
    def sending(self) -> bool:
        """Whether attempts may start: not while the ledger takes no flush, and not once it is closed."""
        return self.recordable and not self._closed

    async def idle(self) -> None:
        """Wait until no attempt is under way."""
        while self.in_flight:
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
        if len(lane.queue) >= self._bounds.lane_pending_max or self.held_bytes >= _HELD_BYTES_MAX or self._sendable(lane) is None:
            lane.spilled = True
            return False
        return True

    def hold(self, delivery: Delivery) -> None:
        """Hold a delivery in memory; it is queued by `queue`, at once or once it is recorded."""
        self.lane(delivery.subscription_id).live[delivery.id] = delivery
        self.held_bytes += delivery.size_bytes

    def take(self, delivery: Delivery, lane: Lane) -> None:
        """Hold a delivery for which its lane has room, and queue it."""
        lane.live[delivery.id] = delivery
        self.held_bytes += delivery.size_bytes
        lane.queue.append(delivery)
        self._join_round(lane)

    def holds(self, subscription_id: str, delivery_id: bytes) -> bool:
        """Say whether a delivery is held in memory."""
        lane = self._lanes.get(subscription_id)
        return lane is not None and delivery_id in lane.live

    def queue(self, delivery: Delivery) -> None:
        """Put a held delivery into its lane's queue; where its subscription has gone meanwhile, it is cancelled."""
        lane = self.lane(delivery.subscription_id)
        if self._is_gone(lane):
            self.finish(delivery, State.CANCELLED)
            return
        lane.queue.append(delivery)
        self._join_round(lane)

    def release(self, delivery: Delivery) -> None:
        """Let go of a settled delivery that is recorded."""
        lane = self.lane(delivery.subscription_id)
        # A spilled one is not held, but its row may be back already: it is seen a moment before its flush is heard of.
        if lane.live.get(delivery.id) is delivery:
            del lane.live[delivery.id]
            self.held_bytes -= delivery.size_bytes
            if not delivery.spilled:
                self.readings.note(delivery)
        if delivery.sent:
            self.unrecorded_sent -= 1
        if delivery.spilled:
            lane.unflushed_spills -= 1
        if delivery.state is State.PENDING:
            lane.row_waits(delivery.due_ms)
        if lane.next_due_ms is not None:
            self._wake(lane)
        self.drop_if_idle(lane)

    def _spill(self, lane: Lane) -> None:
        """Let go of what waits in memory; its rows are read back once the lane may send again."""
        lane.spilled = True
        lane.put_back += 1
        while lane.queue:
            delivery = lane.queue.popleft()
            if delivery.recorded:
                del lane.live[delivery.id]
                self.held_bytes -= delivery.size_bytes
                lane.row_waits(delivery.due_ms)
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
        bounds = self._bounds
        while self._round and self.sending and self.in_flight < bounds.in_flight_max and self.unrecorded_sent < UNRECORDED_SENT_MAX:
            lane = self._round.popleft()
            lane.ready = False
            if not lane.queue or lane.in_flight >= bounds.lane_in_flight_max:
                continue
            subscription = self._sendable(lane)
            if subscription is None:
                self._look_again(lane)
                continue
            if not self._in_pace(lane, subscription):
                continue
            self._start(lane, lane.queue.popleft(), subscription)
            if lane.queue:
                self._join_round(lane)
            if lane.next_due_ms is not None and self._wants_rows(lane, self.due.now_ms()):
                self._hungry(lane)

    def _join_round(self, lane: Lane) -> None:
        # Whether its subscription permits fewer, `pump` asks.
        if lane.queue and not lane.ready and lane.in_flight < self._bounds.lane_in_flight_max:
            lane.ready = True
            self._round.append(lane)

    def _sendable(self, lane: Lane) -> Subscription | None:
        """Return a lane's subscription where an attempt may start now, else None."""
        subscription = self._subscription(lane.subscription_id)
        if subscription is None or subscription.health is not Health.ACTIVE:
            return None
        # Most lanes have had no trouble: time need not be asked for.
        if lane.breaker.is_untroubled and not lane.throttled_until:
            return subscription
        now = self._clock.monotonic()
        return subscription if lane.breaker.permits(now) and now >= lane.throttled_until else None

    def _in_pace(self, lane: Lane, subscription: Subscription) -> bool:
        """Say whether the subscription's own limits permit an attempt now; where only time is missing, look again then."""
        terms = subscription.terms
        if terms.in_flight_max is not None and lane.in_flight >= terms.in_flight_max:
            return False
        now = self._clock.monotonic()
        if terms.rate_per_second is not None and (wait_s := pace.wait_s(lane, subscription, now)) > 0:
            self._timers.at(now + wait_s, lane)
            return False
        return self._pusher.may_push(subscription)

    def _is_gone(self, lane: Lane) -> bool:
        subscription = self._subscription(lane.subscription_id)
        return subscription is None or subscription.health is Health.OFF

    def _start(self, lane: Lane, delivery: Delivery, subscription: Subscription) -> None:
        now_ms, began, terms = unix_ms(self._clock), self._clock.monotonic(), subscription.terms
        crash.reached("delivery.before_send")
        try:
            self._pusher.push(delivery, subscription, functools.partial(self._answered, lane, delivery, terms, now_ms, began))
        except ValueError as error:
            logger().error("delivery.unencodable", event_id=delivery.event_id, subscription=subscription.id, reason=str(error))
            self.give_up(delivery, f"the event could not be encoded: {error}")
            return
        crash.reached("delivery.after_send")
        lane.in_flight += 1
        self.in_flight += 1
        lane.breaker.started()
        pace.started(lane, subscription, began)
        delivery.sent_at = began
        delivery.sent = True
        self.unrecorded_sent += 1

    # Taking answers

    def _answered(self, lane: Lane, delivery: Delivery, terms: Terms, started_ms: int, began: float, answer: Answer) -> None:
        crash.reached("delivery.answered")
        lane.in_flight -= 1
        self.in_flight -= 1
        self._ended.set()
        now = self._clock.monotonic()
        delivery.attempts.append(attempt_of(answer, terms, started_ms, int((now - began) * 1000)))
        if answer.outcome is Outcome.DELIVERED:
            lane.breaker.succeeded(now)
            lane.throttles = 0
            self.finish(delivery, State.DELIVERED)
        else:
            self._judge_endpoint(lane, terms, answer, now)
            self._after_failure(lane, delivery, terms, answer)
        self._join_round(lane)
        self.pump()

    def _after_failure(self, lane: Lane, delivery: Delivery, terms: Terms, answer: Answer) -> None:
        now_ms = self.due.now_ms()
        decision = self._schedule.after_failure(
            attempts=len(delivery.attempts),
            accepted_ms=delivery.accepted_ms,
            now_ms=now_ms,
            chance=random.random(),  # noqa: S311 - jitter
            status=answer.status,
            retry_after_s=retry_after_s(answer.retry_after, unix_ms(self._clock)) if answer.retry_after else None,
            delays_s=terms.retry_delays_s,
        )
        match decision:
            case RetryAt(due_ms) if self._subscription(lane.subscription_id) is not None:
                log_failure(delivery, answer, next_s=(due_ms - now_ms) / 1000)
                delivery.due_ms = due_ms
                self._settle(delivery)
            case RetryAt():
                self.finish(delivery, State.CANCELLED)
            case Exhausted(reason):
                log_failure(delivery, answer, exhausted=reason)
                self.finish(delivery, State.EXHAUSTED)

    def _judge_endpoint(self, lane: Lane, terms: Terms, answer: Answer, now: float) -> None:
        if answer.status == GONE:
            self._leave_alone(lane, terms.sink_revision, now)
        elif throttles(answer.status):
            self._throttle(lane, answer, now, unix_ms(self._clock))
        if lane.breaker.failed(now, random.random()) and lane.breaker.open_until is not None:  # noqa: S311 - jitter
            logger().warning("lane.opened", subscription=lane.subscription_id, for_s=round(lane.breaker.open_until - now, 1))
            self._spill(lane)
            self._timers.at(lane.breaker.open_until, lane)

    def _throttle(self, lane: Lane, answer: Answer, now: float, now_ms: int) -> None:
        """Give an endpoint the pause that it asks for, or one of ours that doubles from time to time."""
        wait_s = retry_after_s(answer.retry_after, now_ms)
        if wait_s is None:
            # Those that were under way together count once.
            if now < lane.throttled_until:
                return
            lane.throttles += 1
            wait_s = pause_s(lane.throttles)
        lane.throttled_until = max(lane.throttled_until, now + wait_s)

    def _leave_alone(self, lane: Lane, revision: int, now: float) -> None:
        """Send nothing more to a sink that says it is gone, and tell; the answer may be of a sink of the past."""
        subscription = self._subscription(lane.subscription_id)
        if subscription is None or subscription.terms.sink_revision != revision:
            return
        # Those that were under way together count once; after the pause the registry is told again.
        if lane.gone_revision == revision and now < lane.throttled_until:
            return
        logger().warning("sink.gone", subscription=lane.subscription_id, revision=revision)
        lane.gone_revision = revision
        lane.throttled_until = max(lane.throttled_until, now + _GONE_PAUSE_S)
        self._spill(lane)
        self._gone(lane.subscription_id, revision)

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
        self._pusher.forget(subscription_id)
        lane = self._lanes.get(subscription_id)
        if lane is not None:
            while lane.queue:
                self.finish(lane.queue.popleft(), State.CANCELLED)

    def revive(self, subscription_id: str) -> None:
        """Look at a lane again after its subscription has changed."""
        lane = self._lanes.get(subscription_id)
        if lane is not None:
            subscription = self._subscription(subscription_id)
            if subscription is not None and subscription.health is Health.PAUSED:
                self._spill(lane)
            if subscription is not None and lane.gone_revision not in {0, subscription.terms.sink_revision}:
                lane.gone_revision, lane.throttled_until = 0, 0.0
            self._wake(lane)
            self.pump()

    def _token_came(self, subscription_id: str) -> None:
        lane = self._lanes.get(subscription_id)
        if lane is not None:
            self._wake(lane)
            self.pump()

    def take_up(self, subscription_id: str) -> None:
        """Go on with a subscription of which unfinished rows may be waiting."""
        lane = self.lane(subscription_id)
        lane.spilled = True
        lane.row_waits(0)
        self.revive(subscription_id)

    def _ring(self, lane: Lane) -> None:
        if self._lanes.get(lane.subscription_id) is lane:
            self._wake(lane)
            self.drop_if_idle(lane)
            self.pump()

    def _wake(self, lane: Lane) -> None:
        """Go on with a lane as far as it may: queue, rows that are due, or a later look."""
        self._join_round(lane)
        if self._sendable(lane) is None:
            self._look_again(lane)
            return
        now_ms = self.due.now_ms()
        if self._wants_rows(lane, now_ms):
            self._hungry(lane)
        elif lane.next_due_ms is not None and lane.next_due_ms > now_ms:
            self._timers.at(self._clock.monotonic() + (lane.next_due_ms - now_ms) / 1000, lane)

    def _wants_rows(self, lane: Lane, now_ms: int) -> bool:
        """Say whether rows that are due should be read back; where there is no room, `pump` and `release` ask again."""
        return lane.next_due_ms is not None and lane.next_due_ms <= now_ms and self.room_to_refill(lane) > 0

    def _look_again(self, lane: Lane) -> None:
        now = self._clock.monotonic()
        breaker = lane.breaker
        waits = [when for when in (breaker.open_until, breaker.rest_until, lane.throttled_until) if when is not None and when > now]
        if waits:
            self._timers.at(max(waits), lane)

    def room_to_refill(self, lane: Lane) -> int:
        """Return how many rows a lane should read back now: one for a probe, else up to half its bound.

        While memory is short, one by one: a lane that holds nothing always gets on.
        """
        if lane.breaker.open_until is not None:
            return 0 if lane.queue or lane.breaker.probing else 1
        if self.held_bytes >= _HELD_BYTES_MAX:
            return 0 if lane.live else 1
        return min(max(0, self._refill_below - len(lane.queue)), _REFILL_ROWS_MAX)

    def refilled(self, lane: Lane, next_due_ms: int | None) -> None:
        """Note when, by the ledger, the next of a lane's rows is due, after some were read back."""
        lane.next_due_ms = earlier(next_due_ms, lane.added_due_ms)
        caught_up = lane.next_due_ms is None or lane.next_due_ms > self.due.now_ms()
        if caught_up and not lane.unflushed_spills and lane.breaker.open_until is None:
            lane.spilled = False
        self._wake(lane)
        self.drop_if_idle(lane)
        self.pump()

    def look_again_in(self, lane: Lane, delay_s: float) -> None:
        """Wake a lane after a while: its rows could not be read back now."""
        self._timers.at(self._clock.monotonic() + delay_s, lane)

    def close(self) -> None:
        """Start nothing more."""
        self._closed = True
        self._pusher.close()
        self._timers.close()

    def drop_if_idle(self, lane: Lane) -> None:
        """Forget a lane that nothing is known of, or whose subscription is deleted, so that memory follows what is going on."""
        if lane.live or lane.refilling or lane.unflushed_spills:
            return
        now, subscription = self._clock.monotonic(), self._subscription(lane.subscription_id)
        breaker, throttled = lane.breaker, now < lane.throttled_until
        if (rested_in_s := pace.rested_in_s(lane, subscription, now)) > 0:
            self._timers.at(now + rested_in_s, lane)
            return
        known = lane.spilled or lane.next_due_ms is not None or breaker.failures or not breaker.is_untroubled or throttled
        if not known or subscription is None:
            self._lanes.pop(lane.subscription_id, None)
