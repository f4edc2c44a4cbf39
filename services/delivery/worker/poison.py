"""Poison: sets an event aside if routing it ends the process again and again, so that the next start goes on behind it.

worker → [poison] ← log_follower; ledger

A start counts once it begins to route. If it crashes, the next start may find the ledger's cursor at the same place; it then routes with
care. It notes each event in the ledger, routes it, and waits until the event is recorded. If the process crashes again, the noted event is
suspected. If the next start crashes at that event too, the start after it sets the event aside.

Law 1: without such crashes no event is noted, and a start writes one note.
Law 2: no event is suspected if the process stops normally, or is killed while it routes nothing.
Law 3: every later start passes by an event that is set aside, and the cursor moves behind it.
"""

import contextlib
import sys
from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client import Counter, Gauge

from services.delivery.errors import LedgerFullError
from services.delivery.ledger.protocol import FIRST_GROUP, Flush, Ledger, ShardCursor
from services.delivery.ledger.rows import RoutingNote, SetAsideRow
from services.delivery.worker.backpressure import LIMIT_MAX
from services.eventlog.record import Record
from services.runtime.clock import Clock, unix_ms
from services.runtime.logs import logger

STARTS_MAX = 3
"""After so many crashed starts at one place, the event there is set aside."""
_CAREFUL_FROM = 2
"""The start at one place from which on events are routed with care."""
_DEATHS_MAX = STARTS_MAX - _CAREFUL_FROM + 1
"""After so many crashed careful starts, the event is set aside."""
_LISTED = 1000
_REASON = "the delivery service ended several times while it routed this event"

_set_aside = Gauge("hooktide_set_aside_events", "Events that are not routed, because routing them ended the delivery service.")
_newly_set_aside = Counter("hooktide_events_set_aside_total", "Events that were set aside because routing them ended the delivery service.")


class Start(NamedTuple):
    """What a start does about the events that come next."""

    note: RoutingNote
    """What the ledger notes once this start routes."""
    culprit: str
    """The id of the event to set aside; empty: there is none."""
    position: int = 0
    """Where that event stands."""


def at_start(note: RoutingNote | None, here: ShardCursor) -> Start:
    """Decide what a start does that finds a note of the process before it, and the ledger's cursor."""
    if note is None:
        return Start(RoutingNote(here.position, here.through, 1), "")
    is_suspected = bool(note.event_id) and _is_ahead(note.event_position, here)
    is_same = (note.position, note.through) == (here.position, here.through)
    fresh = RoutingNote(here.position, here.through, note.starts + 1 if is_same or is_suspected else 1)
    if not is_suspected:
        return Start(fresh, "")
    if note.deaths + 1 >= _DEATHS_MAX:
        return Start(fresh, note.event_id, note.event_position)
    return Start(fresh._replace(event_position=note.event_position, event_id=note.event_id, deaths=note.deaths + 1), "")


class Poison:
    """What one worker knows of events that end it."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._note = RoutingNote(0, "", 0)
        self._listed = 0
        self.set_aside: set[str] = set()  # bounded: by `_LISTED`
        """The ids of events that routing must pass by. A repair gives other events their positions."""
        self.careful_through = 0
        """Events up to this position are routed with care."""
        self.asked_through = sys.maxsize
        """Routing calls `is_routed_with_care` for events up to this position. It has no bound until the first event."""
        self._is_counted = False

    async def start(self, note: RoutingNote | None, here: ShardCursor) -> None:
        """Set aside the event that ended the former processes, if there is one, and decide how to route."""
        self._note, culprit, position = at_start(note, here)
        if culprit:
            logger().error("event.set_aside", event_id=culprit, position=position, reason=_REASON)
            row = SetAsideRow(FIRST_GROUP, here.shard, position, culprit, _REASON, unix_ms(self._clock))
            await self._ledger.flush(Flush(set_aside=[row]))
            await self._write()
            _newly_set_aside.inc()
        rows = await self._ledger.set_aside(_LISTED)
        self._listed = len(rows)
        _set_aside.set(len(rows))
        self.set_aside = _ahead(rows, here)
        # No more than this is routed and not recorded when a process ends.
        if self._note.starts >= _CAREFUL_FROM or self.set_aside:
            self.careful_through = here.position + LIMIT_MAX

    async def is_routed_with_care(self, record: Record) -> bool:
        """Return whether to route an event with care. If so, note the event, unless it is set aside.

        The first call counts the start.
        """
        if not self._is_counted:
            self._is_counted = True
            self.asked_through = self.careful_through
            await self._write()
            if record.position <= self.careful_through:
                logger().warning("routing.careful", starts=self._note.starts, effect="events are recorded one by one")
        if record.position > self.careful_through:
            return False
        if record.event_id not in self.set_aside:
            deaths = self._note.deaths if record.event_id == self._note.event_id else 0
            self._note = self._note._replace(event_position=record.position, event_id=record.event_id, deaths=deaths)
            await self._write()
        return True

    async def stopped(self) -> None:
        """Note that the process stops normally, so that no event is suspected."""
        self._note = RoutingNote(self._note.position, self._note.through, 0)
        await self._write()

    async def _write(self) -> None:
        with contextlib.suppress(LedgerFullError):  # nothing else is written either, and no attempt starts
            await self._ledger.note_routing(self._note)

    def why_degraded(self) -> str | None:
        """Return in a sentence that events are set aside; None if there are none."""
        if not self._listed:
            return None
        return f"events set aside: {self._listed}, because routing them ended this service; the log lines event.set_aside name them"


def _ahead(rows: Iterable[SetAsideRow], here: ShardCursor) -> set[str]:
    return {row.event_id for row in rows if _is_ahead(row.position, here)}


def _is_ahead(position: int, here: ShardCursor) -> bool:
    """Return whether the event at a position is not wholly recorded."""
    return position > here.position or (position == here.position and bool(here.through))
