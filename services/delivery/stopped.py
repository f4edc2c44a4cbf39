"""Stopped partitions: those whose cursors do not fit the log, so that going on would skip or repeat events without end.

event log → [stopped] → route
"""

from prometheus_client import Gauge

from services.eventlog.record import PARTITIONS
from services.runtime.logs import logger

OLDER_COPY = "the log does not hold the events at the ledger's cursors: one of the two is an older copy"
ANOTHER_LOG = "the log is not the one that the ledger has followed: it was made anew, or is another system's"

_stopped_partitions = Gauge("hooktide_stopped_partitions", "Partitions that are not followed, since log and ledger do not fit together.")


class StoppedPartitions:
    """The stopped partitions of one worker, and why they are."""

    def __init__(self) -> None:
        self._why: dict[int, str] = {}
        self._unlogged: dict[int, str] = {}

    def add(self, partition: int, why: str) -> None:
        """Stop a partition; `log` tells of it."""
        self._why[partition] = self._unlogged[partition] = why
        _stopped_partitions.inc()

    def log(self) -> None:
        """Log what was stopped since the last call: one line for each reason, however many partitions."""
        for why in dict.fromkeys(self._unlogged.values()):
            partitions = sorted(partition for partition, reason in self._unlogged.items() if reason == why)
            logger().error(
                "partitions.stopped",
                count=len(partitions),
                partitions="all" if len(partitions) == PARTITIONS else ",".join(map(str, partitions)),
                why=why,
                advice="restore both from the same time, or move the ledger away to route the whole log anew",
            )
        self._unlogged.clear()

    def why(self) -> str | None:
        """Return in a sentence what is stopped and why; None if nothing is."""
        if not self._why:
            return None
        return f"{len(self._why)} of {PARTITIONS} partitions are stopped: {next(iter(self._why.values()))}"
