"""Flush batch: what one flush writes, and which deliveries the recorder settles or queues after it.

recorder → [flush_batch] → ledger
"""

from dataclasses import dataclass, field

from services.delivery.ledger.protocol import FIRST_GROUP, Flush, GroupCursor, ShardCursor
from services.delivery.ledger.rows import DoneRow, DueNow, EndedRow, JobKey, JobRow, LaneRow, NoticeRow, OpenRow, RangeKey, RangeRow
from services.delivery.model import Chunk, Delivery, OwedRange


@dataclass(slots=True)
class FlushBatch:
    """The contents of one flush, as they were when it began; changes during the flush belong to the next."""

    written_ms: int
    opened: list[OpenRow] = field(default_factory=list)
    updated: list[OpenRow] = field(default_factory=list)
    closed: list[bytes] = field(default_factory=list)
    finished: list[DoneRow] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    joined: list[int] = field(default_factory=list)
    """The groups that join the first group."""
    written: list[Delivery] = field(default_factory=list)
    settled: list[Delivery] = field(default_factory=list)
    to_queue: list[Delivery] = field(default_factory=list)
    ranges: list[tuple[OwedRange, tuple[int, int | None] | None]] = field(default_factory=list)
    """The ranges whose rows change, each with its `at` and `until`; None: its row is deleted."""
    range_rows: list[RangeRow] = field(default_factory=list)
    ranges_done: list[RangeKey] = field(default_factory=list)
    ended: list[EndedRow] = field(default_factory=list)
    jobs: list[JobRow] = field(default_factory=list)
    jobs_done: list[JobKey] = field(default_factory=list)
    notices: list[NoticeRow] = field(default_factory=list)
    lanes: list[LaneRow] = field(default_factory=list)
    lanes_done: list[str] = field(default_factory=list)
    due_now: list[DueNow] = field(default_factory=list)

    def flush(self) -> Flush:
        """Return what the transaction writes."""
        last = {chunk.shard: chunk for chunk in self.chunks}.values()
        shards = tuple([ShardCursor(chunk.shard, chunk.position, chunk.event_id, chunk.through) for chunk in last])
        return Flush(
            self.opened,
            self.updated,
            self.closed,
            self.finished,
            [GroupCursor(FIRST_GROUP, shards)] if shards else [],
            self.written_ms,
            joined=self.joined,
            ranges=self.range_rows,
            ranges_done=self.ranges_done,
            ended=self.ended,
            jobs=self.jobs,
            jobs_done=self.jobs_done,
            lanes=self.lanes,
            lanes_done=self.lanes_done,
            notices=self.notices,
            due_now=self.due_now,
        )
