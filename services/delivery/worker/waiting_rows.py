"""Waiting rows: ends deliveries that wait only as rows of the ledger, without an attempt.

ledger → [waiting_rows] → dispatcher → recorder → ledger

Law: each end goes through the dispatcher and a flush, as the end of an attempt does, so only the recorder writes deliveries.
"""

from collections.abc import Awaitable, Callable, Sequence

from services.delivery.dispatch.lane_table import LaneTable
from services.delivery.ledger.rows import OpenRow, delivery_of
from services.delivery.model import Delivery
from services.delivery.worker.recorder import Recorder


async def read_waiting(lanes: LaneTable, rows: Awaitable[list[OpenRow]], subscription_id: str = "") -> list[OpenRow]:
    """Return those rows of a read, of one subscription or of all, whose deliveries are not in memory and did not leave it meanwhile."""
    with lanes.row_reads.track(subscription_id) as left:
        found = await rows
        elsewhere = lanes.held_ids({row.subscription_id for row in found}) | left
        return [row for row in found if row.id not in elsewhere]


async def end_waiting(lanes: LaneTable, rows: Sequence[OpenRow], end: Callable[[Delivery], None], recorder: Recorder) -> None:
    """End the deliveries of waiting rows by calling `end` with each, and return once their ends are recorded.

    The caller must not wait between `read_waiting` and this call: meanwhile a row could be read back into its lane.
    """
    deliveries = [delivery_of(row, None) for row in rows]
    for delivery in deliveries:
        lanes.hold(delivery)
        end(delivery)
    while any(map(lanes.holds, deliveries)):
        await recorder.wait_for_flush()
