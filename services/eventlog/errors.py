"""Errors: the errors of the event log, told apart by whether trying again can help."""

from collections.abc import Sequence


class EventLogError(Exception):
    """The log could not carry out a request."""


class LogFullError(EventLogError):
    """The log has reached its size limit; it takes events again once older events are trimmed after their retention."""


class StorageFullError(EventLogError):
    """The disk is full. Nothing was appended; appending works again once the disk has room."""


class LogClosedError(EventLogError):
    """The log is closed or has failed. The outcome of appends under way is unknown."""


class LogUnavailableError(EventLogError):
    """The log cannot be reached for now; trying again helps."""


class AnotherLogError(EventLogError):
    """The log is not the log that its reader has followed: it was created anew, or belongs to another system."""


class PositionMismatchError(EventLogError):
    """The log does not hold the records that a reader knows at its positions: the log or the reader was restored from an older copy."""

    def __init__(self, shards: Sequence[int]) -> None:
        """Take the shards whose positions do not match, at least one."""
        super().__init__(f"shards {', '.join(map(str, shards))}: the log does not have the records that the reader resumes after")
        self.shards = tuple(shards)
