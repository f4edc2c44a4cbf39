"""Stopped partitions: their cursors do not fit the log, so following them further would skip or repeat events without end.

event log → log_follower → [stopped_partitions] → repair
"""

from dataclasses import dataclass

from prometheus_client import Gauge

from services.delivery.ledger.protocol import Cursor
from services.eventlog.record import PARTITIONS
from services.runtime.logs import logger

OLDER_COPY = "the log does not have the events at the ledger's cursors, because the log or the ledger is an older copy"
ANOTHER_LOG = "the log is not the log that the ledger has followed: it was created again, or belongs to another system"

_stopped_partitions = Gauge("hooktide_stopped_partitions", "Partitions that are stopped because the log and the ledger do not match.")


@dataclass(slots=True)
class RoutingProgress:
    """How far one partition is routed."""

    partition: int
    position: int
    event_id: str
    through: str
    """The id of the last subscription to which the event at the position is routed; empty if it is routed to all of them."""


def progress_at(cursor: Cursor) -> RoutingProgress:
    """Return the progress of a partition that is routed as far as it is recorded."""
    return RoutingProgress(cursor.partition, cursor.position, cursor.event_id, cursor.through)


class StoppedPartitions:
    """The stopped partitions of one worker, how far each is routed, and why each is stopped."""

    def __init__(self) -> None:
        self._progress: dict[int, RoutingProgress] = {}
        self._why: dict[int, str] = {}
        self._unlogged: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(self._progress)

    @property
    def progress(self) -> list[RoutingProgress]:
        """How far each of them is routed."""
        return list(self._progress.values())

    def add(self, progress: RoutingProgress, why: str) -> None:
        """Stop a partition; the next call of `log` reports it."""
        self._progress[progress.partition] = progress
        self._why[progress.partition] = self._unlogged[progress.partition] = why
        _stopped_partitions.inc()

    def remove(self, partition: int) -> None:
        """Note that a partition is followed again."""
        del self._progress[partition]
        del self._why[partition]
        self._unlogged.pop(partition, None)
        _stopped_partitions.dec()

    def log(self) -> None:
        """Log the partitions that were stopped since the last call: one line for each reason, however many partitions."""
        for why in dict.fromkeys(self._unlogged.values()):
            partitions = sorted(partition for partition, reason in self._unlogged.items() if reason == why)
            logger().error(
                "partitions.stopped",
                count=len(partitions),
                partitions="all" if len(partitions) == PARTITIONS else ",".join(map(str, partitions)),
                why=why,
                advice="restore both from backups of the same time, or run `hooktide repair`, which first shows what it would route again",
            )
        self._unlogged.clear()

    def why(self) -> str | None:
        """Return in a sentence how many partitions are stopped and why; None if no partition is stopped."""
        if not self._why:
            return None
        return f"{len(self._why)} of {PARTITIONS} partitions are stopped: {next(iter(self._why.values()))}"
