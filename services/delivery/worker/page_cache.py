"""Page cache: filtered pages of the log, shared by the lanes that are behind with the same filter.

range_reader → [page_cache] → event log

Lanes of one consumer often want the same types, and a lane with little room takes few records of a page at a time. The log is read in
whole pages, and a page serves every reader whose place lies within it.

Law 1: a reader gets what the log holds: all matching records after its place, up to where its page reaches, and no other record.
Law 2: the pages are bounded in bytes; the page that was used longest ago goes first.
Law 3: of several readers with the same filter, one at a time reads the log.
"""

import asyncio
import bisect
import operator
from collections import OrderedDict
from typing import NamedTuple

from services.eventlog.filtered_read import BYTES_MAX, EXAMINED_MAX, RECORDS_MAX, ReadPage, ReadQuery
from services.eventlog.protocol import EventReader
from services.eventlog.record import Record, ShardPosition

BYTES_KEPT_MAX = 16 * 1024 * 1024
# About what a record takes beside its event, and a page beside its records.
_RECORD_BYTES = _PAGE_BYTES = 600


class _Filter(NamedTuple):
    """What two queries must have in common to share pages."""

    types: tuple[str, ...]
    source: str
    audiences: tuple[str, ...]


class _Page(NamedTuple):
    """A page of the log, and where it begins (exclusive) and ends (inclusive)."""

    after: int
    through: int
    read: ReadPage
    size_bytes: int


_after = operator.attrgetter("after")


class PageCache:
    """Reads pages of a log with one append shard, for one worker."""

    def __init__(self, log: EventReader, bytes_max: int = BYTES_KEPT_MAX, records_max: int = RECORDS_MAX) -> None:
        """Keep pages of about `bytes_max` bytes in all, each with at most `records_max` records."""
        self._log = log
        self._bytes_max = bytes_max
        self._records_max = records_max
        self._pages: OrderedDict[tuple[_Filter, int], _Page] = OrderedDict()
        """By filter and beginning; the page that was used longest ago is the first."""
        self._by_filter: dict[_Filter, list[_Page]] = {}
        """The same pages, sorted by their beginnings."""
        self._reading: dict[_Filter, asyncio.Event] = {}
        """For each filter whose next page is being read, an event that is set at the end."""
        self.size_bytes = 0
        """About how many bytes the pages take."""
        self._clears = 0

    def clear(self) -> None:
        """Forget all pages. Call it when the log may be another one, or an older copy."""
        self._clears += 1
        self._pages.clear()
        self._by_filter.clear()
        self.size_bytes = 0

    async def read(self, query: ReadQuery) -> ReadPage:
        """Return a page as `EventReader.read` does; raises what that raises."""
        wanted = _Filter(tuple(query.types), query.source, tuple(query.audiences))
        while (page := self._find(wanted, query.after[0].position)) is None:
            if (reading := self._reading.get(wanted)) is None:
                page = await self._read(wanted, query)
                break
            await reading.wait()
        return _part(page, query)

    def _find(self, wanted: _Filter, after: int) -> _Page | None:
        pages = self._by_filter.get(wanted)
        if pages is None:
            return None
        index = bisect.bisect_right(pages, after, key=_after) - 1
        if index < 0 or pages[index].through <= after:
            return None
        self._pages.move_to_end((wanted, pages[index].after))
        return pages[index]

    async def _read(self, wanted: _Filter, query: ReadQuery) -> _Page:
        done = self._reading[wanted] = asyncio.Event()
        clears = self._clears
        try:
            read = await self._log.read(
                query._replace(records_max=self._records_max, bytes_max=BYTES_MAX, examined_max=max(query.examined_max, EXAMINED_MAX))
            )
        finally:
            del self._reading[wanted]
            done.set()
        size_bytes = _PAGE_BYTES + sum([_RECORD_BYTES + len(record.event) for record in read.records])
        page = _Page(query.after[0].position, read.scanned_through[0].position, read, size_bytes)
        if clears == self._clears and page.through > page.after:
            self._keep(wanted, page)
        return page

    def _keep(self, wanted: _Filter, page: _Page) -> None:
        bisect.insort(self._by_filter.setdefault(wanted, []), page, key=_after)
        self._pages[wanted, page.after] = page
        self.size_bytes += page.size_bytes
        while self.size_bytes > self._bytes_max:
            (forgotten, _), oldest = self._pages.popitem(last=False)
            self.size_bytes -= oldest.size_bytes
            pages = self._by_filter[forgotten]
            del pages[bisect.bisect_left(pages, oldest.after, key=_after)]
            if not pages:
                del self._by_filter[forgotten]


def _part(page: _Page, query: ReadQuery) -> ReadPage:
    """Return what a page holds of a query's range, within the query's bounds."""
    after = query.after[0].position
    through = max(after, min(page.through, query.through[0].position)) if query.through else page.through
    records, size_bytes = list[Record](), 0
    for record in page.read.records:
        if not after < record.position <= through:
            continue
        size_bytes += len(record.event)
        if records and (len(records) >= query.records_max or size_bytes > query.bytes_max):
            through = records[-1].position
            break
        records.append(record)
    return page.read._replace(records=records, scanned_through=[ShardPosition(page.read.scanned_through[0].shard, through)])
