"""History: what a caller asks of the log's history, and what it gets."""

from typing import NamedTuple

from services.eventlog.record import Record
from services.runtime.consumer_scope import Scope


class EventQuery(NamedTuple):
    """Which events a page of the history holds; empty texts and None match every event."""

    before: int | None
    """Where the page begins: `next_before` of the page before. Only the log reads this number. None: with the newest event."""
    limit: int
    scope: Scope
    type: str
    source: str
    start_ms: int | None
    """Events accepted at or after this time, in ms since 1970."""
    end_ms: int | None
    """Events accepted before this time, in ms since 1970."""


class EventPage(NamedTuple):
    """A page of the history."""

    records: list[Record]
    """The newest first."""
    next_before: int | None
    """Where the next page begins; None: this is the last page."""
