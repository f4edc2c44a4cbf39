"""Ordered lanes: let a delivery start when it is the head of its key, and keep it waiting until then.

dispatcher → [ordered_lanes: key_order] → lane

Law 1: a delivery that waits for one in memory waits in memory. It becomes a row once an earlier one of its key is a row.
Law 2: nothing above what its lane owes is queued.
"""

from collections import deque
from collections.abc import Callable

from services.delivery.dispatch import lifecycle
from services.delivery.dispatch.key_order import WAITING_MAX, KeyOrder
from services.delivery.dispatch.lane import Lane
from services.delivery.dispatch.lane_table import LaneTable
from services.delivery.dispatch.owed_ranges import handed_out_through
from services.delivery.ledger.rows import WaitingRow
from services.delivery.model import Delivery, Phase
from services.runtime.logs import logger


class OrderedLanes:
    """What ordered lanes do with deliveries, for a worker."""

    def __init__(self, lanes: LaneTable, become_row: Callable[[Lane, Delivery], None], join_round: Callable[[Lane], None]) -> None:
        """`become_row` lets a queued delivery wait as a row, and `join_round` lets a lane take its turns."""
        self._lanes = lanes
        self._become_row = become_row
        self._join_round = join_round

    def add(self, lane: Lane, order: KeyOrder, delivery: Delivery) -> None:
        """Hold a delivery for which its lane has room, and queue it once it may start."""
        self._lanes.hold_in(lane, delivery)
        lifecycle.queue(delivery)
        self.queue(lane, order, delivery)

    def queue(self, lane: Lane, order: KeyOrder, delivery: Delivery) -> None:
        """Queue a delivery of the phase QUEUED if it may start, or else let it wait."""
        order.add(delivery)
        if delivery.owed is None and delivery.position > handed_out_through(lane.ranges):
            lane.joined.append(delivery)
        elif order.may_start(delivery):
            lane.queue.append(delivery)
            self._join_round(lane)
        elif order.has_row_before(delivery.order_key, delivery.position):
            self._become_row(lane, delivery)
        else:
            order.wait(delivery)
        if order.is_full and not order.is_slowed:
            logger().warning("lane.slowed", subscription=lane.subscription_id, reason=f"{WAITING_MAX} events wait for others of their keys")
        order.is_slowed = order.is_full

    def join_queues(self, lane: Lane, order: KeyOrder) -> None:
        """Queue what was routed above the lane's ranges, as far as these are handed out."""
        joined, lane.joined = lane.joined, deque()  # bounded: by `LaneTable`, as in `Lane`
        for delivery in joined:
            self.queue(lane, order, delivery)

    def ended(self, lane: Lane, order: KeyOrder, delivery: Delivery | WaitingRow) -> None:
        """Go on with the key of a delivery that has ended."""
        first = order.end(delivery)
        if first is None:
            lane.next_due_ms = order.next_due_ms(handed_out_through(lane.ranges))
        else:
            lane.queue.append(first)
            self._join_round(lane)

    def failed(self, lane: Lane, order: KeyOrder, delivery: Delivery) -> None:
        """Let a key wait for a delivery whose attempt has failed, or was withdrawn: what waits behind it in memory becomes rows."""
        order.leaves(delivery)
        for each in order.take_waiting(delivery.order_key, delivery.position):
            self._become_row(lane, each)

    def loaded(self, lane: Lane, order: KeyOrder, first: list[Delivery]) -> None:
        """Queue the deliveries in memory that may start, now that the lane's rows are known."""
        if lane.order is order:
            lane.queue.extend(first)
            self._join_round(lane)

    def switch(self, lane: Lane, *, is_ordered: bool) -> None:
        """Keep the order of a lane's keys from now on, or no longer; do nothing if that is so already. Its rows are read for that."""
        if is_ordered is (lane.order is not None):
            return
        order, lane.order = lane.order, None
        if order is not None:
            lane.queue.extend(order.take_all_waiting())
        if is_ordered:
            lane.order = order = KeyOrder(is_complete=False)
            for delivery in lane.held:
                if delivery.phase in {Phase.RETRYING, Phase.WITHDRAWN, Phase.SPILLED}:
                    order.leaves(delivery)
                elif delivery.phase is not Phase.ENDED:
                    order.add(delivery)
            queued, lane.queue = lane.queue, deque()  # bounded: by `LaneTable`, as in `Lane`
            for delivery in queued:
                order.wait(delivery)
        lane.row_waits(0)
