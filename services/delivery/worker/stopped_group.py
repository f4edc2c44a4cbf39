"""Stopped group: a cursor group whose place does not fit the log. To follow the log further would skip or repeat events without end.

event log → log_follower → [stopped_group] → repair
"""

from prometheus_client import Gauge

from services.runtime.logs import logger

OLDER_COPY = "the log does not have the events at the ledger's cursor, because the log or the ledger is an older copy"
ANOTHER_LOG = "the log is not the log that the ledger has followed: it was created again, or belongs to another system"

_stopped_groups = Gauge("hooktide_stopped_groups", "Cursor groups that are stopped because the log and the ledger do not match.")


class StoppedGroup:
    """Whether a worker's cursor group is stopped, and why."""

    def __init__(self) -> None:
        self._why = ""

    def __bool__(self) -> bool:
        return bool(self._why)

    def stop(self, why: str) -> None:
        """Stop the group, and log it."""
        self._why = why
        _stopped_groups.inc()
        logger().error(
            "routing.stopped",
            why=why,
            advice="restore both from backups of the same time, or run `hooktide repair`, which first shows what it would route again",
        )

    def resume(self) -> None:
        """Note that the group, which is stopped, is followed again."""
        self._why = ""
        _stopped_groups.dec()

    def why(self) -> str | None:
        """Return in a sentence that the group is stopped and why; None if it is not stopped."""
        return f"routing is stopped: {self._why}" if self._why else None
