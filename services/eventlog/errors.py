"""Errors of the event log. Each says whether asking again can help."""

from collections.abc import Sequence


class EventLogError(Exception):
    """The log could not do what it was asked to."""


class LogFullError(EventLogError):
    """The log has reached its size limit; it takes events again once older ones are past their retention."""


class StorageFullError(EventLogError):
    """The disk is full; nothing was appended, and appending works again once there is room."""


class LogClosedError(EventLogError):
    """The log is closed or has failed; whether what was under way was appended is unknown."""


class LogUnavailableError(EventLogError):
    """The log cannot be reached for now; asking again helps."""


class AnotherLogError(EventLogError):
    """The log is not the one that its reader has followed: it was made anew, or is another system's."""


class PositionMismatchError(EventLogError):
    """The log does not hold, at a reader's positions, the records that the reader knows: one of the two was restored from an older copy."""

    def __init__(self, partitions: Sequence[int]) -> None:
        """Name the partitions whose positions do not fit, at least one."""
        super().__init__(f"partitions {', '.join(map(str, partitions))}: the log does not hold the records that the reader resumes from")
        self.partitions = tuple(partitions)
