"""Dispatcher: queues deliveries in their lanes, and carries out what follows from the answers to their attempts.

router → lane → [dispatcher] → attempt_scheduler → sender; the answer → sink_health, retry_policy → recorder

Law 1: `lifecycle` alone changes a delivery's phase.
Law 2: when a subscription changes, or its sink must get no attempt for a while, the attempts that have not begun are withdrawn. Their
deliveries wait again, and the attempts do not count.
"""

import random
from collections.abc import Callable, Iterable

from services.delivery.dispatch import lifecycle
from services.delivery.dispatch.attempt_scheduler import AttemptScheduler, Callbacks
from services.delivery.dispatch.backlog import Backlog
from services.delivery.dispatch.circuit_breaker import CircuitBreaker
from services.delivery.dispatch.concurrency_limit import LIMIT_FIRST, ConcurrencyLimit
from services.delivery.dispatch.fair_rounds import Flow
from services.delivery.dispatch.lane import Lane, earlier
from services.delivery.dispatch.lane_table import Bounds, LaneTable
from services.delivery.dispatch.lane_timers import LaneTimers
from services.delivery.dispatch.owed_ranges import handed_out_through, is_read
from services.delivery.dispatch.protocol import Sender, SinkTransitions
from services.delivery.dispatch.retry_policy import Exhausted, RetryAt, RetryPolicy, retry_after_s, throttles
from services.delivery.dispatch.sink_health import SinkHealth
from services.delivery.dispatch.sink_reports import tell_failure
from services.delivery.ledger.rows import LaneRow
from services.delivery.model import Attempt, Delivery, Phase, State, SubscriptionStatus
from services.delivery.request.attempt_record import attempt_of, log_failure
from services.delivery.request.request_settings import RequestSettings
from services.delivery.transport.protocol import Answer, Outcome
from services.runtime import failpoints
from services.runtime.clock import Clock, unix_ms
from services.runtime.event_types import is_reserved
from services.runtime.logs import logger

# Members that the code for every delivery compares with: to look one up by its class takes 0.14 µs.
_ENDED, _SPILLED, _STATE_DELIVERED, _OUTCOME_DELIVERED = Phase.ENDED, Phase.SPILLED, State.DELIVERED, Outcome.DELIVERED


class Dispatcher:
    """The lanes of a worker over time: what enters them, what is answered, and what their subscriptions' changes mean."""

    def __init__(  # noqa: PLR0913 - one parameter for each collaborator
        self,
        sender: Sender,
        lanes: LaneTable,
        retry_policy: RetryPolicy,
        clock: Clock,
        bounds: Bounds,
        *,
        settled: Callable[[Delivery], None],
        rows_due: Callable[[Lane], None],
        page_due: Callable[[Lane], None],
        due_now: Callable[[str, int], None],
        sinks: SinkTransitions,
    ) -> None:
        """`sender` carries the attempts out. The callbacks come at any time, within the dispatcher's own methods.

        `settled` gets each delivery that waits for its flush or is let go, `rows_due` a lane that has room for its due rows, `page_due` a
        lane that has room for a page of its range, `sinks` what happens to sinks, and `due_now` whose rows must be due at what time.
        """
        self._sender = sender
        self._subscription = lanes.subscription
        self._retry_policy = retry_policy
        self._clock = clock
        self.due = lanes.due
        """The clock by which deliveries wait."""
        self._bounds = bounds
        self._settled, self._rows_due, self._page_due, self._due_now, self._sinks = settled, rows_due, page_due, due_now, sinks
        self.lanes = lanes
        """All lanes, with the deliveries held in memory."""
        self._timers = LaneTimers(clock, self._timer_fired)
        callbacks = Callbacks(self._answered, self.exhaust, self._wake_when_unblocked, self._on_sender_ready, self._has_turned)
        self.attempts = AttemptScheduler(sender, lanes, self._timers, clock, bounds, callbacks)
        """Chooses what starts, and counts what is under way."""
        self.pump, self._join_round = self.attempts.pump, self.attempts.join_round
        """Start attempts as long as there is room."""
        self.backlog = Backlog(lanes, clock, settled, self._withdraw, self.wake, self._join_round)
        """What becomes of deliveries that wait when their lane cannot take them."""
        self.ordered = self.backlog.ordered
        """What becomes of deliveries whose subscriptions ask for order."""

    def change(self, retry_policy: RetryPolicy, bounds: Bounds) -> None:
        """Use another retry policy and other bounds from now on; deliveries that are under way or waiting beyond the bounds stay."""
        self._retry_policy, self._bounds = retry_policy, bounds
        self.lanes.change(bounds.lane_pending_max)
        self.attempts.change(bounds)

    def pause(self, *, paused: bool) -> None:
        """Start no attempt while the operator has paused all deliveries, and withdraw those that have not begun; go on afterwards."""
        self.attempts.paused = paused
        (self.withdraw_all if paused else self.pump)()

    # Taking deliveries in

    def add(self, delivery: Delivery, lane: Lane) -> None:
        """Hold a delivery for which its lane has room, and queue it."""
        self.lanes.hold_in(lane, delivery)
        lifecycle.queue(delivery)
        if lane.ranges and not is_read(lane.ranges[0]) and delivery.owed is None:
            lane.joined.append(delivery)
        else:
            lane.queue.append(delivery)
            self._join_round(lane)

    def queue(self, delivery: Delivery) -> None:
        """Put a held delivery into its lane's queue; cancel it if its subscription is deleted or off by now."""
        lane = self.lanes.lane(delivery.subscription_id)
        if not self.lanes.is_wanted(lane):
            self.finish(delivery, State.CANCELLED)
            return
        lifecycle.queue(delivery)
        if lane.order is not None:
            self.ordered.queue(lane, lane.order, delivery)
            if not lane.held or lane.joined:
                self.wake(lane)  # the delivery is left to its row, or waits until the range is read: the lane has room again
            return
        lane.queue.append(delivery)
        self._join_round(lane)

    def release(self, delivery: Delivery) -> None:
        """Drop a settled and recorded delivery from memory."""
        lane, phase = self.lanes.lane(delivery.subscription_id), lifecycle.release(delivery)
        if self.lanes.drop(lane, delivery) and phase is not _SPILLED:
            self.lanes.row_reads.note(delivery)
        if delivery.sent_at is not None:
            self.attempts.recorded(lane)
        if phase is not _ENDED:
            if phase is _SPILLED:
                lane.unflushed_spills -= 1
            lane.row_waits(delivery.due_ms)
            if delivery.attempts:
                lane.failed_row_waits()
            if lane.order is not None:
                lane.order.row(delivery)
        if lane.next_due_ms is not None or lane.ranges:
            self.wake(lane)
        if not lane.held:
            self.forget_if_idle(lane)

    def _withdraw(self, lane: Lane) -> None:
        if lane.in_flight:
            self._sender.withdraw(lane.subscription_id)

    # Taking answers

    def _answered(
        self, lane: Lane, flow: Flow, delivery: Delivery, settings: RequestSettings, started_ms: int, began: float, answer: Answer
    ) -> None:
        failpoints.reached("delivery.answered")
        now = self._clock.monotonic()
        self.attempts.ended(lane, flow, now - began, answer)
        self.lanes.unrecorded_ended += 1
        if answer.outcome is _OUTCOME_DELIVERED:
            delivery.attempts.append(attempt_of(answer, settings, started_ms, int((now - began) * 1000)))
            if lane.sink_health is not None and lane.sink_health.is_of(settings):
                self._note_success(lane.sink_health, delivery, now)
            if lane.limit.to_count:
                lane.limit.succeeded(now)
            self._finish(lane, delivery, _STATE_DELIVERED)
        elif answer.begun:
            delivery.attempts.append(attempt_of(answer, settings, started_ms, int((now - began) * 1000)))
            wait_s = retry_after_s(answer.retry_after, unix_ms(self._clock)) if answer.retry_after else None
            is_current = self._note_failure(lane, delivery, settings, answer, wait_s, began)
            self._after_failure(lane, delivery, settings, answer, wait_s, sink_has_changed=not is_current)
        else:
            self._has_not_begun(lane, delivery, began)
        self._join_round(lane)
        self.attempts.pump_soon()

    def _has_not_begun(self, lane: Lane, delivery: Delivery, began: float) -> None:
        """Settle a delivery whose attempt was withdrawn: it becomes a row and keeps its due time, or is cancelled."""
        lifecycle.withdraw(delivery)
        self.attempts.recorded(lane)
        if lane.sink_health is not None:
            lane.sink_health.breaker.withdrawn(began)
        if self.lanes.is_wanted(lane):
            self._wait_as_row(lane, delivery)
        else:
            self.finish(delivery, State.CANCELLED)

    def _wait_as_row(self, lane: Lane, delivery: Delivery) -> None:
        if lane.order is not None:
            self.ordered.failed(lane, lane.order, delivery)
        self._settled(delivery)

    def _after_failure(
        self, lane: Lane, delivery: Delivery, settings: RequestSettings, answer: Answer, wait_s: float | None, *, sink_has_changed: bool
    ) -> None:
        now_ms = self.due.now_ms()
        decision = self._retry_policy.after_failure(
            attempts=len(delivery.attempts),
            accepted_ms=now_ms - self.due.age_ms(delivery.accepted_ms),
            now_ms=now_ms,
            chance=random.random(),  # noqa: S311 - jitter
            status=answer.status,
            retry_after_s=wait_s,
            own=settings.retry,
            sink_has_changed=sink_has_changed,
        )
        match decision:
            case RetryAt(due_ms) if self._subscription(lane.subscription_id) is not None:
                log_failure(delivery, answer, next_s=(due_ms - now_ms) / 1000)
                lifecycle.retry(delivery, due_ms, settings.sink_fingerprint)
                self._wait_as_row(lane, delivery)
            case RetryAt():
                self.finish(delivery, State.CANCELLED)
            case Exhausted(reason):
                log_failure(delivery, answer, exhausted=reason)
                self.finish(delivery, State.EXHAUSTED)

    def _note_failure(
        self, lane: Lane, delivery: Delivery, settings: RequestSettings, answer: Answer, wait_s: float | None, began: float
    ) -> bool:
        """Note a sink's failure and stop attempts to it if need be; return whether sink and credential are still the subscription's."""
        subscription = self._subscription(lane.subscription_id)
        if subscription is None or not subscription.settings.is_same_sink(settings):
            return False
        now, health = self._clock.monotonic(), lane.sink_health
        if health is None:
            breaker = CircuitBreaker(self._bounds.breaker_first_s)
            health = lane.sink_health = SinkHealth(settings.sink_revision, breaker, settings.credential)
        tried_s = None if len(delivery.attempts) == 1 else (delivery.attempts[-1].started_ms - delivery.attempts[-2].started_ms) / 1000
        verdict = health.failed(answer.status, wait_s, now, random.random(), tried_s and now - began + tried_s)  # noqa: S311 - jitter
        if answer.outcome is Outcome.TIMEOUT or throttles(answer.status):
            lane.limit.overloaded(began, now)
        if verdict.opens:
            lane.limit.restart(now)
        if verdict.is_gone:
            logger().warning("sink.gone", subscription=lane.subscription_id, revision=health.sink_revision)
            self._sinks.gone(subscription)
        if verdict.opens and health.breaker.open_until is not None:
            logger().warning("circuit_breaker.opened", subscription=lane.subscription_id, for_s=round(health.breaker.open_until - now, 1))
            self._timers.at(health.breaker.open_until, lane)
        due_ms, after_s = self.due.now_ms(), self._bounds.disable_after_s
        tell_failure(self._sinks, subscription, health, delivery, now_ms=due_ms, unix_ms=unix_ms(self._clock), disable_after_s=after_s)
        if verdict.opens or verdict.pauses:
            health.is_recorded = True
            self.lanes.changed[lane.subscription_id] = None
        if verdict.is_gone or verdict.opens:
            self.backlog.stop(lane)
        elif verdict.pauses:
            self._withdraw(lane)
        return True

    def _note_success(self, health: SinkHealth, delivery: Delivery, now: float) -> None:
        """Note a success of a sink that has failed before. Tell that it has recovered, if `tell_failure` told that it fails."""
        health.succeeded(now)
        if health.is_recorded:
            health.is_recorded = health.is_open
            self.lanes.changed[delivery.subscription_id] = None
        told_ms = health.told_failing_since_ms
        if told_ms is not None and not health.is_open and not is_reserved(delivery.event_type):
            health.told_failing_since_ms = None
            if (subscription := self._subscription(delivery.subscription_id)) is not None:
                self._sinks.recovered(subscription, told_ms)

    def finish(self, delivery: Delivery, state: State) -> None:
        """Bring a held delivery to its end."""
        self._finish(self.lanes.lane(delivery.subscription_id), delivery, state)

    def _finish(self, lane: Lane, delivery: Delivery, state: State) -> None:
        self.lanes.end(lane, delivery, state, unix_ms(self._clock))
        self._settled(delivery)
        if lane.order is not None:
            self.ordered.ended(lane, lane.order, delivery)

    def cancel_waiting(self, delivery: Delivery) -> None:
        """Cancel a delivery that waits for its flush, because its subscription is deleted or off by now."""
        lane = self.lanes.lane(delivery.subscription_id)
        if delivery.phase is Phase.SPILLED:
            lane.unflushed_spills -= 1
        self.lanes.cancel(lane, delivery, unix_ms(self._clock))
        if lane.order is not None:
            self.ordered.ended(lane, lane.order, delivery)

    def exhaust(self, delivery: Delivery, why: str) -> None:
        """End a held delivery that cannot be attempted."""
        delivery.attempts.append(Attempt(unix_ms(self._clock), 0, Outcome.PROTOCOL, 0, why, ""))
        self.finish(delivery, State.EXHAUSTED)

    # Lanes over time

    def cancel(self, subscription_id: str) -> None:
        """Cancel all deliveries that wait in memory for a subscription; attempts that have begun run to their end."""
        self._sender.forget(subscription_id)
        lane = self.lanes.find(subscription_id)
        if lane is not None:
            self._withdraw(lane)
            lane.generation += 1
            lane.queue.extend([*lane.joined, *(lane.order.take_all_waiting() if lane.order is not None else ())])
            lane.joined.clear()
            while lane.queue:
                self.finish(lane.queue.popleft(), State.CANCELLED)

    def subscription_changed(self, subscription_id: str) -> None:
        """Apply a subscription's present settings to its lane: withdraw what has not begun, spill a paused lane, wake any other."""
        lane, subscription = self.lanes.find(subscription_id), self._subscription(subscription_id)
        if lane is not None and subscription is not None:
            if lane.sink_health is not None and not lane.sink_health.is_of(subscription.settings):
                if lane.sink_health.is_recorded:
                    self.lanes.changed[subscription_id] = None
                lane.sink_health = None
                # The attempts under way at the former sink take none of the first window of the new one.
                lane.limit = ConcurrencyLimit(LIMIT_FIRST + lane.in_flight)
            if lane.moves_to(subscription.settings, now_ms := self.due.now_ms()):
                self._due_now(subscription_id, now_ms)
            lane.generation += 1
            self.ordered.switch(lane, is_ordered=subscription.settings.is_ordered)
            self._withdraw(lane)
            if subscription.status is SubscriptionStatus.PAUSED:
                self.backlog.stop(lane)
            self.wake(lane)
            self.pump()

    def _on_sender_ready(self, subscription_id: str) -> None:
        lane = self.lanes.find(subscription_id)
        if lane is not None:
            self.wake(lane)
            self.pump()

    def resume(self, subscription_id: str) -> None:
        """Resume a subscription that may have unfinished rows in the ledger."""
        lane = self.lanes.lane(subscription_id)
        lane.spilled = True
        lane.row_waits(0)
        if lane.order is not None:
            lane.order.is_complete = False
        self.subscription_changed(subscription_id)

    def _timer_fired(self, lane: Lane) -> None:
        if lane in self.lanes:
            self.wake(lane)
            self.forget_if_idle(lane)
            self.pump()

    def wake(self, lane: Lane) -> None:
        """Do what a lane permits now: join the round, ask for due rows, or set a timer for later."""
        self._join_round(lane)
        if self.lanes.sendable(lane) is None:
            self._wake_when_unblocked(lane)
            return
        if lane.order is not None:
            lane.next_due_ms = lane.order.next_due_ms(handed_out_through(lane.ranges))
        if lane.spilled and self.lanes.has_no_due_row(lane):
            lane.no_row_waits()
        now_ms = self.due.now_ms()
        if self.lanes.wants_rows(lane, now_ms):
            self._rows_due(lane)
        elif lane.next_due_ms is not None and lane.next_due_ms > now_ms:
            self._timers.at(self._clock.monotonic() + (lane.next_due_ms - now_ms) / 1000, lane)
        if lane.ranges and not self.lanes.wants_rows(lane, now_ms) and self.lanes.wants_page(lane):
            self._page_due(lane)

    def _has_turned(self, lane: Lane) -> None:
        """Ask for more of what waits for a lane that has just started an attempt, if it has room."""
        if lane.next_due_ms is not None and self.lanes.wants_rows(lane, self.due.now_ms()):
            self._rows_due(lane)
        elif lane.ranges and self.lanes.wants_page(lane):
            self._page_due(lane)

    def restore(self, rows: Iterable[LaneRow]) -> None:
        """Give lanes what an earlier process has kept of them; rows of former sinks and subscriptions are deleted."""
        for lane in self.lanes.restore(rows, self._bounds.breaker_first_s):
            self._wake_when_unblocked(lane)

    def _wake_when_unblocked(self, lane: Lane) -> None:
        if lane.sink_health is not None and (when := lane.sink_health.blocked_until(self._clock.monotonic())) is not None:
            self._timers.at(when, lane)

    def refilled(self, lane: Lane, next_due_ms: int | None) -> None:
        """Note that some of a lane's rows were read back, and when the ledger says that the next row is due."""
        lane.next_due_ms = earlier(next_due_ms, lane.added_due_ms)
        self.wake(lane)
        self.forget_if_idle(lane)
        self.pump()

    def wake_in(self, lane: Lane, delay_s: float) -> None:
        """Wake a lane after a while: its rows could not be read back now."""
        self._timers.at(self._clock.monotonic() + delay_s, lane)

    def withdraw_all(self, consumer_id: str = "") -> None:
        """Withdraw every started attempt that has not begun, of one consumer or of all (""), because it may no longer be sent."""
        self._sender.withdraw_all(consumer_id)

    def close(self) -> None:
        """Start no more attempts, and withdraw those that have not begun."""
        self.attempts.close()
        self.withdraw_all()
        self._sender.close()
        self._timers.close()

    def forget_if_idle(self, lane: Lane) -> None:
        """Forget a lane that is no different from a new one; if time will make it so, set a timer."""
        if (when := self.lanes.forget_if_idle(lane)) is not None:
            self._timers.at(when, lane)
