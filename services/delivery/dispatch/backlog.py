"""Backlog: what becomes of the deliveries that a lane cannot take: a few rows, or a range that it owes.

log_follower, dispatcher → [backlog: owed_ranges, lifecycle] → lane, recorder

Law 1: a lane that may not send gets few rows for what waits. With more, and if it sends too slowly, it goes behind: a backlog costs a place
in the log.
Law 2: what a lane lets go lies above everything of it that has a row, an attempt or a place in a flush.
"""

import itertools
import operator
from collections.abc import Callable

from services.delivery.dispatch import lifecycle
from services.delivery.dispatch.fair_rounds import Work
from services.delivery.dispatch.lane import Lane
from services.delivery.dispatch.lane_table import LaneTable
from services.delivery.dispatch.ordered_lanes import OrderedLanes
from services.delivery.dispatch.owed_ranges import begin, cut, is_behind, is_read, next_range, take_back
from services.delivery.model import Chunk, Delivery, OwedRange
from services.runtime.clock import Clock, unix_ms

_position_of = operator.attrgetter("position")


class Backlog:
    """The backlog of all lanes of a worker."""

    def __init__(
        self,
        lanes: LaneTable,
        clock: Clock,
        settled: Callable[[Delivery], None],
        withdraw: Callable[[Lane], None],
        wake: Callable[[Lane], None],
        join_round: Callable[[Lane], None],
    ) -> None:
        """`settled` gets each delivery that becomes a row or is let go.

        `withdraw` takes back a lane's attempts that have not begun, `wake` lets a lane do what it may do, and `join_round` lets it send
        what is queued.
        """
        self._lanes = lanes
        self._clock = clock
        self._settled = settled
        self._withdraw = withdraw
        self._wake = wake
        self.passed_by: list[OwedRange] = []  # bounded: each range comes once
        """The ranges that have begun since routing last changed its index: their lanes may leave it."""
        self.ordered = OrderedLanes(lanes, self._become_row, join_round)
        """What becomes of deliveries whose subscriptions ask for order."""

    def stop(self, lane: Lane) -> None:
        """Take what waits out of memory, because the lane may not send: a little becomes rows, and of more the lane owes a range."""
        self._withdraw(lane)
        self.put_away(lane)

    def put_away(self, lane: Lane) -> None:
        """Do what `stop` does with what is queued."""
        if not self._lanes.takes_rows_of_queue(lane):
            self.go_behind(lane)
            return
        lane.generation += 1
        lane.spilled = True
        if lane.order is not None:
            lane.queue.extend(lane.order.take_all_waiting())
        while lane.queue:
            self._become_row(lane, lane.queue.popleft())

    def _become_row(self, lane: Lane, delivery: Delivery) -> None:
        if lane.order is not None:
            lane.order.leaves(delivery)
        if delivery.recorded:
            lifecycle.put_back(delivery)
            self._lanes.drop(lane, delivery)
            lane.row_waits(delivery.due_ms)
            if lane.order is not None:
                lane.order.row(delivery)
            if not delivery.attempts:
                lane.rows_wait(1)
        else:
            self._lanes.spill(delivery)
            self._settled(delivery)

    def spill(self, lane: Lane, delivery: Delivery, *, for_key: bool = False) -> None:
        """Let a routed delivery wait as a row, because its lane may not send, or for an earlier row of its key only."""
        lane.spilled = lane.spilled or not for_key
        if lane.order is not None:
            lane.order.leaves(delivery)
            lane.order.spilled_through = delivery.position
        self._lanes.spill(delivery)

    def go_behind(self, lane: Lane) -> None:
        """Let a lane owe the events from now on: let go of what it has queued, and leave to rows what has one or must get one."""
        lane.generation += 1
        for_keys = () if lane.order is None else lane.order.take_all_waiting()
        waiting = sorted(itertools.chain(lane.queue, lane.joined, for_keys), key=_position_of)
        lane.queue.clear()
        lane.joined.clear()
        routed_cut = cut(delivery for delivery in lane.held if delivery.owed is None)
        if lane.order is not None:
            # A delivery that routing has spilled for its key is not held, and may be written later than those that are let go.
            routed_cut = max(routed_cut, lane.order.spilled_through)
        handed_cut = cut(delivery for delivery in lane.held if delivery.owed is not None)
        first_routed: Delivery | None = None
        first_handed: Delivery | None = None
        for delivery in waiting:
            if delivery.owed is not None and delivery.position > handed_cut:
                first_handed = first_handed or delivery
                self._let_go(lane, delivery)
            elif not delivery.recorded and delivery.chunk is not None and delivery.position > routed_cut:
                first_routed = first_routed or delivery
                self._let_go(lane, delivery)
                self._settled(delivery)
            else:
                lane.spilled = True
                self._become_row(lane, delivery)
        if first_handed is not None:
            assert first_handed.owed is not None  # noqa: S101 - it was handed out
            lane.consumer.handed -= take_back(first_handed.owed, first_handed)
        if not is_behind(lane.ranges):
            lane.ranges.append(next_range(lane.subscription_id, lane.ranges, unix_ms(self._clock), lane.consumer.id))
            lane.work = Work.CATCH_UP
        if first_routed is not None:
            self.pass_by(lane, first_routed.chunk, first_routed.position)

    def _let_go(self, lane: Lane, delivery: Delivery) -> None:
        self._lanes.let_go(lane, delivery)
        if lane.order is not None:
            lane.order.end(delivery)

    def pass_by(self, lane: Lane, chunk: Chunk | None, position: int) -> None:
        """Pass a lane that is behind by, with the event of a chunk. If it is the first event, the chunk's flush writes the range."""
        owed = lane.ranges[-1]
        if owed.at is None and chunk is not None:
            begin(owed, position)
            if chunk.begins is None:
                chunk.begins = [owed]
            else:
                chunk.begins.append(owed)
            self.passed_by.append(owed)

    def join_queues(self, lane: Lane) -> None:
        """Queue what was routed above a lane's last range, once all of its ranges are handed out."""
        if lane.order is not None:
            self.ordered.join_queues(lane, lane.order)
            self._wake(lane)
        elif lane.joined and all(is_read(owed) for owed in lane.ranges):
            lane.queue.extend(lane.joined)
            lane.joined.clear()
            self._wake(lane)
