"""Range bugs: mistakes in owed ranges that are easy to make, each put back into the real code; see `bugs.py`."""

# ruff: noqa: SLF001 - a bug is put into what is private

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from services.delivery.dispatch import owed_ranges
from services.delivery.dispatch.lane import Lane
from services.delivery.ledger.rows import RangeRow
from services.delivery.ledger.sqlite.ledger import SqliteLedger
from services.delivery.model import Chunk, Delivery, OwedRange
from services.delivery.worker import lane_modes, range_reader, recorder, worker
from services.delivery.worker.lane_modes import LaneModes
from services.delivery.worker.range_reader import RangeReader
from services.delivery.worker.recorder import Recorder
from tests.simulation.bug_scenarios import deletion_during_a_page
from tests.simulation.playing import Scenario

Replace = Callable[[Any, str, Any], None]
"""Replaces an attribute of an object, as `setattr` does, or `pytest.MonkeyPatch.setattr` until its test ends."""

_LATER_S = 0.1


def range_opened_before_its_chunk(patch: Replace) -> None:
    """A range is written as soon as its lane goes behind, and not with the chunk of its first event."""
    collect = Recorder._collect

    def collect_early(self: Recorder) -> object:
        for chunk in self._chunks:
            for owed in chunk.begins or ():
                owed.begun = True
                self._ranges[owed] = None
        return collect(self)

    patch(Recorder, "_collect", collect_early)


def range_opened_after_its_chunk(patch: Replace) -> None:
    """The cursor passes the first event of a range, and the range is written a moment later."""
    collect_chunk = Recorder._collect_chunk

    def collect_late(self: Recorder, batch: Any, chunk: Chunk) -> int:
        begins, chunk.begins = chunk.begins, None

        def open_ranges() -> None:
            for owed in begins or ():
                owed.begun = True
                self._unflushed.add_range(owed)

        if begins:
            asyncio.get_running_loop().call_later(_LATER_S, open_ranges)
        return collect_chunk(self, batch, chunk)

    patch(Recorder, "_collect_chunk", collect_late)


def stale_page_handed_out(patch: Replace) -> None:
    """A page is handed out although its lane or its subscription has changed since the page was asked for."""

    async def read(self: RangeReader, lane: Lane) -> float:
        subscription = self._lanes.sendable(lane)
        if not lane.ranges or subscription is None:
            return 0.0
        owed = lane.ranges[0]
        through = self._lane_modes.through(owed)
        if owed.at is None or owed.read_through >= through:
            self._lane_modes.wait(lane, owed)
            return 0.0
        room = self._lanes.room_for_page(lane)
        if room > 0:
            page = await self._pages.read(range_reader._query(subscription, owed, through, room))
            self._hand_out(lane, owed, subscription, page)
        return 0.0

    patch(RangeReader, "_read", read)


def overlap_at_joining(patch: Replace) -> None:
    """A range ends one event above the last one that is routed, so routing hands that event over as well."""

    def close(owed: OwedRange, last: int) -> None:
        owed_ranges.close(owed, last + 1)

    patch(lane_modes, "close", close)


def gap_at_joining(patch: Replace) -> None:
    """A range ends one event too early, and routing does not hand that event over."""

    def close(owed: OwedRange, last: int) -> None:
        owed_ranges.close(owed, max(last - 1, owed.read_through))

    patch(lane_modes, "close", close)


def end_of_a_range_not_written(patch: Replace) -> None:
    """A lane joins, and the end of its range is not written."""
    patch(recorder, "RangeRow", lambda *row: RangeRow(*row)._replace(until=None))


def range_moved_before_its_rows(patch: Replace) -> None:
    """A range moves behind what was handed out, before the rows of it are written."""

    def take_written(owed: OwedRange, is_waiting: Callable[[Delivery], bool]) -> Iterator[Delivery]:
        yield from owed_ranges.take_written(owed, is_waiting)
        owed.at = owed.read_through

    patch(recorder, "take_written", take_written)


def trim_past_a_range(patch: Replace) -> None:
    """The log may drop events that a lane still owes."""

    async def nothing_owed(_self: SqliteLedger) -> None:
        return None

    patch(SqliteLedger, "lowest_owed", nothing_owed)


def range_read_beyond_what_is_recorded(patch: Replace) -> None:
    """A lane reads what is routed by now, although it may not be recorded."""
    patch(LaneModes, "through", lambda _self, owed: owed.until or 1 << 40)


def range_sent_before_it_is_recorded(patch: Replace) -> None:
    """After a restart, what was handed out of a range before is sent again before it is recorded."""
    patch(lane_modes, "HANDED_MAX", 0)

    class Forgetful(LaneModes):
        """Forgets what may have been sent before."""

        def __setattr__(self, name: str, value: object) -> None:
            """Set every attribute but one to its value."""
            super().__setattr__(name, 0 if name == "record_first_through" else value)

    patch(worker, "LaneModes", Forgetful)


RANGE_BUGS: dict[Callable[[Replace], None], int | Scenario] = {
    range_opened_before_its_chunk: 10,
    range_opened_after_its_chunk: 1,
    stale_page_handed_out: deletion_during_a_page,
    overlap_at_joining: 2,
    gap_at_joining: 7,
    end_of_a_range_not_written: 10,
    range_moved_before_its_rows: 2,
    trim_past_a_range: 18,
    range_read_beyond_what_is_recorded: 14,
    range_sent_before_it_is_recorded: 1,
}
"""Each bug, and what is known to catch it: a seed or a directed scenario."""
