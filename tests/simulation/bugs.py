"""Bugs: mistakes that are easy to make, each put back into the real code by replacing one function.

The simulation must catch each of them: this shows that its invariants can fail, and that its world makes them fail. `python -m
tests.simulation --bug NAME --seeds 200` names the seeds that catch a bug. A bug that few seeds catch has a directed scenario.

Law: a bug changes one decision. Whatever breaks in a run with a bug must break by an invariant, and not by the replacement.
"""

# ruff: noqa: SLF001 - a bug is put into what is private

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from services.delivery.dispatch.backlog import Backlog
from services.delivery.dispatch.due_clock import DueClock
from services.delivery.dispatch.lane import Lane, RowReads
from services.delivery.dispatch.retry_policy import RetryAt, RetryPolicy
from services.delivery.dispatch.sink_health import SinkHealth, Verdict
from services.delivery.ledger.protocol import Flush
from services.delivery.ledger.sqlite.ledger import SqliteLedger
from services.delivery.model import delivery_id
from services.delivery.subscriptions.freshness import Freshness
from services.delivery.subscriptions.read_barrier import ReadBarrier
from services.delivery.subscriptions.revision_client import LeasedRevision, RevisionClient
from services.delivery.worker import log_follower
from services.delivery.worker.lane_refill import LaneRefill
from services.delivery.worker.log_follower import LogFollower
from services.delivery.worker.retention_loop import RetentionLoop
from services.eventlog.record import SlotProgress
from services.runtime.clock import unix_ms
from tests.simulation.bug_scenarios import pause_before_a_flush, sink_changed_while_no_worker_runs
from tests.simulation.key_bugs import KEY_BUGS
from tests.simulation.playing import Scenario
from tests.simulation.range_bugs import RANGE_BUGS, Replace
from tests.simulation.start_bugs import START_BUGS

_LONGER_S = 0.3


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug and what is known to catch it: a seed, or a directed scenario if seeds rarely meet the bug.

    A change of delivery may make another seed the first one.
    """

    put_back: Callable[[Replace], None]
    caught_by: int | Scenario


def cursor_moved_before_rows(patch: Replace) -> None:
    """The cursor passes a chunk in a transaction of its own, before the rows of the chunk are written."""
    flush_whole = SqliteLedger.flush

    async def flush(self: SqliteLedger, flush: Flush) -> None:
        if flush.cursors:
            await flush_whole(self, Flush(cursors=flush.cursors))
        await flush_whole(self, flush)

    patch(SqliteLedger, "flush", flush)


def record_first_skipped(patch: Replace) -> None:
    """After a restart, events that may have been sent before are sent again before they are recorded."""
    take = LogFollower._take

    def take_at_once(self: LogFollower, *arguments: Any) -> None:
        self._record_first_through = {}
        take(self, *arguments)

    patch(LogFollower, "_take", take_at_once)


def retry_before_it_is_due(patch: Replace) -> None:
    """A retry waits for half of its delay."""
    after_failure = RetryPolicy.after_failure

    def sooner(self: RetryPolicy, *, now_ms: int, **rest: Any) -> object:
        decision = after_failure(self, now_ms=now_ms, **rest)
        return RetryAt(now_ms + (decision.due_ms - now_ms) // 2) if isinstance(decision, RetryAt) else decision

    patch(RetryPolicy, "after_failure", sooner)


def pause_of_the_sink_ignored(patch: Replace) -> None:
    """A sink's `Retry-After` holds back the delivery that got it, but not the others of its lane."""
    failed = SinkHealth.failed

    def failed_without_pause(self: SinkHealth, status: int, retry_after_s: float | None, *rest: Any) -> Verdict:
        del retry_after_s
        return failed(self, 500 if status != 410 else status, None, *rest)

    patch(SinkHealth, "failed", failed_without_pause)


def left_during_a_read_forgotten(patch: Replace) -> None:
    """A row that a read returns is handed out although its delivery has left memory during the read."""
    patch(RowReads, "note", lambda _self, _delivery: None)


def held_delivery_handed_out_twice(patch: Replace) -> None:
    """A row is read back although its delivery is in memory."""
    patch(Lane, "held_ids", lambda _self: set())


def rows_stay_after_a_deletion(patch: Replace) -> None:
    """The deletion of a subscription cancels what is in memory, and leaves the rows."""
    patch(LaneRefill, "_cancel_rows", lambda _self, _subscription_id: None)


def let_go_delivery_lost(patch: Replace) -> None:
    """A lane that may not send lets go what has no row, and the flush of its chunk does not write it."""
    stop = Backlog.stop

    def stop_recorded(self: Backlog, lane: Lane) -> None:
        for delivery in [each for each in lane.queue if not each.recorded]:
            lane.queue.remove(delivery)
            self._lanes.drop(lane, delivery)
            if delivery.chunk is not None:
                delivery.chunk.deliveries.remove(delivery)
                delivery.chunk.unsettled -= 1
        stop(self, lane)

    patch(Backlog, "stop", stop_recorded)


def read_lease_longer(patch: Replace) -> None:
    """Delivery counts a read lease from the registry's answer on, and so for longer than the registry does."""
    ask = RevisionClient.ask

    async def ask_for_longer(self: RevisionClient, *arguments: Any) -> LeasedRevision:
        answer = await ask(self, *arguments)
        return answer._replace(lease_until=answer.lease_until + _LONGER_S)

    patch(RevisionClient, "ask", ask_for_longer)


def expiry_by_the_wall_clock(patch: Replace) -> None:
    """The age of a delivery is measured by the wall clock, which may be far ahead for a moment."""
    patch(DueClock, "age_ms", lambda self, accepted_ms: unix_ms(self._clock) - accepted_ms)


def identity_without_the_subscription(patch: Replace) -> None:
    """A delivery's id is derived from its event alone."""
    # The id of any subscription.
    other = f"sub_{0:032x}"
    patch(log_follower, "delivery_id", lambda event_id, _subscription_id: delivery_id(event_id, other))


def freeze_not_noticed(patch: Replace) -> None:
    """After a freeze, deliveries go out before the registry was asked."""
    patch(Freshness, "holds", lambda _self: True)


def barrier_not_waited_for(patch: Replace) -> None:
    """Events are routed without asking the registry for its revision."""

    async def passed(_self: ReadBarrier) -> None:
        return

    patch(ReadBarrier, "passed", passed)


def released_without_a_copy(patch: Replace) -> None:
    """The log may drop what is recorded, although unfinished deliveries need it and the ledger has no copy."""

    async def progress(self: RetentionLoop) -> list[SlotProgress]:
        recorded = await self._ledger.recorded_place()
        return [SlotProgress((), recorded, recorded)]

    patch(RetentionLoop, "_progress", progress)


def finished_rows_rewritten(patch: Replace) -> None:
    """A restart forgets what is finished: rows of finished deliveries are written as waiting again."""
    flush_whole = SqliteLedger.flush

    async def flush(self: SqliteLedger, flush: Flush) -> None:
        await flush_whole(self, replace(flush, closed=()))

    patch(SqliteLedger, "flush", flush)


def former_sink_binds_after_a_restart(patch: Replace) -> None:
    """If the sink changes while no worker runs, deliveries that failed at the former sink keep their due times."""

    async def forget_nothing(_self: LaneRefill, _counts: object) -> None:
        return

    patch(LaneRefill, "_forget_former_sinks", forget_nothing)


_CAUGHT_BY: dict[Callable[[Replace], None], int | Scenario] = {
    cursor_moved_before_rows: 1,
    record_first_skipped: 3,
    retry_before_it_is_due: 1,
    pause_of_the_sink_ignored: 3,
    left_during_a_read_forgotten: 5,
    held_delivery_handed_out_twice: 1,
    rows_stay_after_a_deletion: 10,
    let_go_delivery_lost: pause_before_a_flush,
    read_lease_longer: 19,
    expiry_by_the_wall_clock: 17,
    identity_without_the_subscription: 1,
    freeze_not_noticed: 6,
    barrier_not_waited_for: 2,
    released_without_a_copy: 4,
    finished_rows_rewritten: 1,
    former_sink_binds_after_a_restart: sink_changed_while_no_worker_runs,
    **RANGE_BUGS,
    **START_BUGS,
    **KEY_BUGS,
}

BUGS = {put_back.__name__: Bug(put_back, caught_by) for put_back, caught_by in _CAUGHT_BY.items()}
