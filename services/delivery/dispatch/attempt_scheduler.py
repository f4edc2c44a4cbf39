"""Attempt scheduler: chooses which delivery is attempted next, and starts its attempt.

lane → dispatcher → [attempt_scheduler] → sender → transport

Law 1: attempts under way are bounded, and so are attempts whose end is not recorded.
Law 2: lanes take turns, as `fair_rounds` decides; a lane that may not send keeps no place.
Law 3: only this file starts attempts, and it alone counts the attempts under way.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

from services.delivery.dispatch import lifecycle, rate_limit
from services.delivery.dispatch.fair_rounds import UNRECORDED_RESERVE, Consumer, FairRounds, Flow, Work
from services.delivery.dispatch.lane import Lane
from services.delivery.dispatch.lane_table import UNRECORDED_SENT_MAX, Bounds, LaneTable
from services.delivery.dispatch.lane_timers import LaneTimers
from services.delivery.dispatch.protocol import Sender
from services.delivery.dispatch.unproven_sinks import FAILURES_MAX
from services.delivery.model import Delivery
from services.delivery.request.request_settings import RequestSettings, Subscription
from services.delivery.transport.protocol import Answer, Outcome
from services.runtime import failpoints
from services.runtime.clock import Clock, unix_ms
from services.runtime.logs import logger

# A member that the code for every delivery compares with: to look it up by its class takes 0.14 µs.
_DELIVERED = Outcome.DELIVERED
_UNRECORDED_MAX = UNRECORDED_SENT_MAX + UNRECORDED_RESERVE


class Answered(Protocol):
    """Takes the answer to an attempt."""

    def __call__(
        self, lane: Lane, flow: Flow, delivery: Delivery, settings: RequestSettings, started_ms: int, began: float, answer: Answer
    ) -> None:
        """Take an answer to the attempt that a lane started from a flow; pass lane and flow on to `AttemptScheduler.ended`.

        `settings` are those of the attempt, which began at `started_ms` (since 1970) and `began` (monotonic).
        """
        ...


class Callbacks(NamedTuple):
    """Whom the scheduler calls; at any time, within its own methods."""

    answered: Answered
    """Gets each attempt's answer."""
    refused: Callable[[Delivery, str], None]
    """Gets a delivery that cannot be encoded, with the reason."""
    blocked: Callable[[Lane], None]
    """Gets a lane that may not send now."""
    ready: Callable[[str], None]
    """Gets the id of a subscription for which the sender can send again."""
    has_turned: Callable[[Lane], None]
    """Gets a lane that has started an attempt, and has rows or owed ranges besides its queue."""


class AttemptScheduler:
    """Starts attempts for all lanes of a worker."""

    def __init__(self, sender: Sender, lanes: LaneTable, timers: LaneTimers, clock: Clock, bounds: Bounds, callbacks: Callbacks) -> None:
        """`timers` wake a lane when its rate permits its next attempt."""
        self._sender = sender
        self._lanes = lanes
        self._timers = timers
        self._clock = clock
        self._bounds = bounds
        self._answered, self._refused, self._blocked, self._ready, self._has_turned = callbacks
        self._rounds = FairRounds(bounds.in_flight_max)
        self._ended = asyncio.Event()
        self._closed = False
        self._pump_asked = False
        self.in_flight = 0
        """How many attempts are under way."""
        self.recordable = True
        """False while the ledger takes no flush; no attempt starts then."""
        self.paused = False
        """True while the operator has paused all deliveries; no attempt starts then."""

    def change(self, bounds: Bounds) -> None:
        """Use other bounds from now on."""
        self._bounds = bounds
        self._rounds.places = bounds.in_flight_max
        self.pump()

    @property
    def sending(self) -> bool:
        """Whether attempts may start: not while the ledger takes no flush, and not after `close`."""
        return self.recordable and not self._closed

    async def idle(self) -> None:
        """Wait until no attempt is under way."""
        while self.in_flight:
            self._ended.clear()
            await self._ended.wait()

    def close(self) -> None:
        """Start no more attempts."""
        self._closed = True

    def join_round(self, lane: Lane) -> None:
        """Let a lane take its turns, if it has something to send."""
        # `pump` checks whether the subscription or the operator permits fewer.
        if lane.queue and not lane.in_round and not lane.is_parked and lane.in_flight < lane.limit.limit:
            lane.in_round = True
            self._rounds.join(lane, Work.RETRY if lane.queue[0].attempts else lane.work)

    def resume(self, consumer: Consumer) -> None:
        """Let a consumer's lanes take their turns again, because its pause is over."""
        self._rounds.resume(consumer)

    def pump(self) -> None:
        """Start attempts as long as there is room."""
        now, now_ms = self._clock.monotonic(), unix_ms(self._clock)
        while self._may_start() and (lane := self._next(now)) is not None:
            lane.in_round = False
            if not lane.queue or lane.in_flight >= lane.limit.limit or lane.in_flight >= self._bounds.lane_in_flight_max:
                continue
            subscription = self._lanes.sendable(lane)
            if subscription is None:
                self._blocked(lane)
                continue
            if not self._is_within_limits(lane, subscription, now) or lane.flow is None:
                continue
            if not lane.is_proven and not self._may_try(lane, now):
                continue
            self._start(lane, lane.flow, lane.queue.popleft(), subscription, now, now_ms)
            if lane.queue:
                self.join_round(lane)
            if lane.next_due_ms is not None or lane.ranges:
                self._has_turned(lane)

    def _next(self, now: float) -> Lane | None:
        return self._rounds.next(now, self._bounds.in_flight_max - self.in_flight, _UNRECORDED_MAX - self._lanes.unrecorded_sent)

    def pump_soon(self) -> None:
        """Call `pump` once after all answers of this turn of the event loop."""
        if not self._pump_asked:
            self._pump_asked = True
            asyncio.get_running_loop().call_soon(self._pump_now)

    def _pump_now(self) -> None:
        self._pump_asked = False
        self.pump()

    def _may_start(self) -> bool:
        has_room = self.in_flight < self._bounds.in_flight_max and self._lanes.unrecorded_sent < _UNRECORDED_MAX
        return has_room and self.sending and not self.paused and self._sender.fresh()

    def _is_within_limits(self, lane: Lane, subscription: Subscription, now: float) -> bool:
        """Return whether the subscription's own limits permit an attempt now; if only the rate forbids it, set a timer."""
        settings = subscription.settings
        if settings.in_flight_max is not None and lane.in_flight >= settings.in_flight_max:
            return False
        if settings.rate_per_second is not None and (wait_s := rate_limit.wait_s(lane, subscription, now)) > 0:
            self._timers.at(now + wait_s, lane)
            return False
        return self._sender.may_send(subscription, self._ready)

    def _may_try(self, lane: Lane, now: float) -> bool:
        """Return whether an attempt to an unproven sink may start now; if not, the lane is parked for a moment."""
        consumer, unproven = lane.consumer, lane.consumer.unproven
        wait_s = unproven.wait_s(now)
        if wait_s == 0 and (lane.has_try_turn or not unproven.is_waited_for):
            lane.has_try_turn = False
            return True
        unproven.park(lane)
        if not consumer.unparks:
            consumer.unparks = True
            asyncio.get_running_loop().call_later(wait_s, self._unpark, consumer)
        return False

    def _unpark(self, consumer: Consumer) -> None:
        """Let the next parked lane take its turn."""
        self.join_round(consumer.unproven.unpark())
        self.pump()
        consumer.unparks = consumer.unproven.is_waited_for
        if consumer.unparks:
            wait_s = consumer.unproven.wait_s(self._clock.monotonic())
            asyncio.get_running_loop().call_later(wait_s, self._unpark, consumer)

    def _prove(self, lane: Lane, answer: Answer) -> None:
        """Note whether a sink has taken an attempt."""
        if not answer.begun:
            return
        succeeded, was_proven = answer.outcome is _DELIVERED, lane.is_proven
        lane.failures = 0 if succeeded else lane.failures + 1
        lane.is_proven = succeeded or (was_proven and lane.failures < FAILURES_MAX)
        if not was_proven:
            lane.consumer.unproven.ended(succeeded=succeeded)

    def _start(self, lane: Lane, flow: Flow, delivery: Delivery, subscription: Subscription, began: float, now_ms: int) -> None:
        settings = subscription.settings
        done = functools.partial(self._answered, lane, flow, delivery, settings, now_ms, began)
        failpoints.reached("delivery.before_send")
        try:
            self._sender.send(delivery, subscription, now_ms, done)
        except Exception as error:  # noqa: BLE001 - whatever one event breaks, all others must go on
            logger().error("delivery.encoding_failed", event_id=delivery.event_id, subscription=subscription.id, reason=str(error))
            self._refused(delivery, f"the event could not be encoded: {error}")
            return
        failpoints.reached("delivery.after_send")
        lane.in_flight += 1
        if lane.in_flight >= lane.limit.limit:
            lane.limit.reached()
        self.in_flight += 1
        self._rounds.started(flow)
        if lane.sink_health is not None:
            lane.sink_health.breaker.started()
        rate_limit.started(lane, subscription, began)
        lifecycle.start(delivery, began)
        self._lanes.unrecorded_sent += 1
        if not lane.is_proven:
            lane.consumer.unproven.started(began)

    def ended(self, lane: Lane, flow: Flow, lasted_s: float, answer: Answer) -> None:
        """Note that an attempt of a lane has ended."""
        if not lane.is_proven or lane.failures or answer.outcome is not _DELIVERED:
            self._prove(lane, answer)
        lane.in_flight -= 1
        self.in_flight -= 1
        self._rounds.ended(lane, flow, lasted_s)
        self._ended.set()

    def recorded(self, lane: Lane) -> None:
        """Note that an ended attempt of a lane is recorded, or was withdrawn before it began."""
        self._lanes.unrecorded_sent -= 1
        self._lanes.unrecorded_ended -= 1
        self._rounds.recorded(lane.consumer)
