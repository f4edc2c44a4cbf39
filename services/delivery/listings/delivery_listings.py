"""Delivery listings: pages of deliveries, from the ledger's rows and from the log for lanes that are behind.

ledger, lanes, event log → [delivery_listings: rowless] → server

Law 1: pages are in the order of ids, which begin with the event's time; so a page token means the same for rows and for what waits.
Law 2: a call reads a bounded part of the log, and callers of different scopes take turns at it.
Law 3: without the log a page has the rows alone, and says so.
"""

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from services.delivery.dispatch.lane_table import LaneTable
from services.delivery.ledger.protocol import Ledger, Listing
from services.delivery.listings.rowless import (
    Item,
    NotListed,
    Owed,
    Rowless,
    in_listing,
    is_off,
    may_want_type,
    merged,
    owed_of,
    rowless,
    wants,
)
from services.delivery.model import State, delivery_id, partition_of, slot_of_delivery
from services.delivery.subscriptions.replica import Replica
from services.eventlog.errors import EventLogError
from services.eventlog.filtered_read import ReadPage, ReadQuery
from services.eventlog.history import EventPage, EventQuery
from services.eventlog.record import Record, ShardPosition
from services.runtime.consumer_scope import Scope
from services.runtime.errors import Failure, Reason
from services.runtime.event_types import patterns_of
from services.runtime.fair_semaphore import FairSemaphore, PermitRefusedError, Share
from services.runtime.ids import is_id, slot_of

WAITING_MAX = 200
"""How many of the events that wait for one subscription its listing reads from the log."""
_READS_MAX = 4
_PAGES_MAX = 5
_ENDED_MAX = 1000
_LOG_S = 2.0
# After so many lanes, which take about a millisecond, the event loop goes on with other work.
_LANES_AT_ONCE = 100
_KEPT_PAGES = 4
_WAITING_CALLS_MAX = 32


_NOTHING = NotListed(0, 0)


class ReadsLog(Protocol):
    """What listings read of the event log's ranges."""

    async def read(self, query: ReadQuery) -> ReadPage:
        """See `EventReader.read`."""
        ...


class FindsEvents(Protocol):
    """What listings look up in the event log."""

    async def locate(self, scope: Scope, event_id: str) -> Record | None:
        """See `EventHistory.locate`."""
        ...

    async def newest(self, query: EventQuery) -> EventPage:
        """See `EventHistory.newest`."""
        ...


class DeliveryPage(NamedTuple):
    """A page of deliveries."""

    items: list[Item]
    """The newest event first."""
    before_id: bytes | None
    """The next page has lower ids; None: this is the last page."""
    not_listed: NotListed
    """What waits in the log besides the items."""
    ended: dict[State, int]
    """About how many deliveries have ended without a row, by state, besides the items."""
    partial: bool
    """Whether the log could not be read, so that what waits there is not on the page."""


@dataclass(slots=True)
class _Found:
    """What is found outside of the ledger's rows."""

    items: dict[bytes, Rowless] = field(default_factory=dict)
    """The newest that belong on the page, by their ids."""
    not_listed: NotListed = _NOTHING
    ended: dict[State, int] = field(default_factory=dict)
    partial: bool = False

    def add(self, item: Rowless, listing: Listing) -> None:
        """Add a delivery if a listing's page may hold it."""
        if in_listing(item, listing):
            self.items[item.id] = item
            if len(self.items) > _KEPT_PAGES * listing.limit:
                newest = heapq.nlargest(listing.limit + 1, self.items)
                self.items = {each: self.items[each] for each in newest}


class DeliveryListings:
    """The listings of one worker's deliveries."""

    def __init__(
        self,
        ledger: Ledger,
        log: ReadsLog,
        history: FindsEvents,
        lanes: LaneTable,
        replica: Replica,
        *,
        recorded_through: Callable[[str], int],
        waits_s: Callable[[], float | None],
    ) -> None:
        """`recorded_through` returns the position up to which everything of a subscription is in the ledger.

        `waits_s` returns for how long, in seconds from an event's acceptance, its delivery may wait; None: not known yet.
        """
        self._ledger = ledger
        self._log = log
        self._history = history
        self._lanes = lanes
        self._replica = replica
        self._recorded_through = recorded_through
        self._waits_s = waits_s
        self._reads = FairSemaphore(Share(permits=2, owner_permits=1), owner_waiting_max=_WAITING_CALLS_MAX)

    async def page(self, listing: Listing) -> DeliveryPage:
        """Return a page. Raises `Failure` OVERLOADED if too many listings wait."""
        found = _Found()
        if listing.state is not State.DELIVERED:
            try:
                await (self._find_of_event if listing.event_id else self._find)(listing, found)
            except (EventLogError, PermitRefusedError, TimeoutError):
                found.partial = True
                found.items.clear()  # they are counted, as all that waits
                found.not_listed = _totals([each async for each in self._owed(listing)])
        rows, rows_end = await self._ledger.page(listing._replace(limit=listing.limit + 1))
        items, before_id = merged(rows, rows_end, found.items.values(), listing.limit)
        return DeliveryPage(items, before_id, found.not_listed, found.ended, found.partial)

    # What waits

    async def _owed(self, listing: Listing) -> AsyncIterator[Owed]:
        """Yield what is owed of a listing's deliveries, as far as the filter shows it without the events."""
        if listing.state not in {None, State.PENDING}:
            return
        if listing.subscription_id:
            lane = self._lanes.find(listing.subscription_id)
            lanes = [] if lane is None else [lane]
        else:
            lanes = list(self._lanes)
        for number, lane in enumerate(lanes, 1):
            if lane.ranges and (subscription := self._replica.get(lane.subscription_id)) is not None:
                is_asked = listing.scope.includes(subscription.consumer_id) and may_want_type(subscription, listing.event_type)
                if is_asked and not is_off(subscription):
                    for owed in owed_of(lane, subscription, self._recorded_through(lane.subscription_id)):
                        yield owed
            if number % _LANES_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _find(self, listing: Listing, found: _Found) -> None:
        """Find what waits for a subscription, or how much waits for several."""
        found.ended = await self._ended_totals(listing)
        owed = [each async for each in self._owed(listing)]
        if not listing.subscription_id:
            found.not_listed = _totals(owed)
            return
        left, read = list[Owed](), 0
        for each in owed:
            after = each.after
            async for page in self._pages(listing, each, WAITING_MAX - read):
                read += len(page.records)
                for record in page.records:
                    found.add(self._waiting(each, record), listing)
                after = page.scanned_through[0].position
            if after < each.through:
                share = 1.0 if after == each.after else (each.through - after) / (each.through - each.after)
                left.append(each._replace(after=after, about=max(1, round(each.about * share))))
        found.not_listed = _totals(left)

    async def _pages(self, listing: Listing, owed: Owed, limit: int) -> AsyncIterator[ReadPage]:
        """Read the oldest events of a range, up to a limit, and a bounded part of the log."""
        after = owed.after
        subscription = owed.subscription
        for _ in range(_READS_MAX):
            if limit <= 0 or after >= owed.through:
                return
            query = ReadQuery(
                [ShardPosition(0, after)],
                [ShardPosition(0, owed.through)],
                types=[listing.event_type] if listing.event_type else subscription.types,
                source=subscription.source,
                audiences=("", subscription.consumer_id),
                records_max=limit,
            )
            async with self._turn(listing.scope):
                page = await self._log.read(query)
            yield page
            limit -= len(page.records)
            if page.scanned_through[0].position <= after:
                return
            after = page.scanned_through[0].position

    async def _find_of_event(self, listing: Listing, found: _Found) -> None:
        """Find for whom an event waits, and for whom it has ended without a row."""
        if not is_id(listing.event_id, "evt"):
            return
        async with self._turn(listing.scope):
            record = await self._history.locate(listing.scope, listing.event_id)
        if record is None:
            return
        patterns = frozenset(patterns_of(record.type))
        async for owed in self._owed(listing):
            if owed.after < record.position <= owed.through and wants(owed.subscription, record, patterns):
                found.add(self._waiting(owed, record), listing)
        for ended in await self._ledger.ended_at(listing.scope, record.shard, record.position, _ENDED_MAX):
            subscription = self._replica.get(ended.subscription_id)
            if subscription is not None and wants(subscription, record, patterns):
                found.add(rowless(subscription, ended.job_id, record, ended.reason, ended.time_ms), listing)

    def _waiting(self, owed: Owed, record: Record) -> Rowless:
        waits_s = self._waits_s()
        expires_ms = None if waits_s is None else record.accepted_ms + int(waits_s * 1000)
        return rowless(owed.subscription, owed.job_id, record, State.PENDING, expires_ms)

    async def _ended_totals(self, listing: Listing) -> dict[State, int]:
        if listing.state is State.PENDING:
            return {}
        totals = await self._ledger.ended_totals(listing.scope, listing.subscription_id)
        return {state: about for state, about in totals.items() if listing.state in {None, state}}

    @contextlib.asynccontextmanager
    async def _turn(self, scope: Scope) -> AsyncIterator[None]:
        """Wait for the scope's turn at the log. The call within must end in time."""
        async with self._reads.permit(scope.text, _LOG_S), asyncio.timeout(_LOG_S):
            yield

    # One delivery

    async def find(self, scope: Scope, delivery_id: bytes) -> Item | None:
        """Return one delivery of a scope, with or without a row; None if the scope has no such delivery.

        Raises `Failure` UNAVAILABLE if only the log could tell and cannot be read.
        """
        row = await self._ledger.find(scope, delivery_id)
        if row is not None:
            return row
        slot = slot_of_delivery(delivery_id)
        everything = Listing(None, 1, scope, None, "", "", "", None, None)
        owed = [each async for each in self._owed(everything) if slot_of(each.subscription.id) == slot]
        if not owed:
            return None
        try:
            found = await self._find_in_log(scope, delivery_id, owed)
        except (EventLogError, PermitRefusedError, TimeoutError) as error:
            raise Failure(
                Reason.UNAVAILABLE, "The event log, in which the delivery may wait, cannot be read; try again.", retry_after_s=1.0
            ) from error
        # What has left a range in the meantime has a row by now.
        return found or await self._ledger.find(scope, delivery_id)

    async def _find_in_log(self, scope: Scope, wanted: bytes, owed: Iterable[Owed]) -> Rowless | None:
        """Search the events of the millisecond that a delivery's id names; a few pages of them at most."""
        event_ms = int.from_bytes(wanted[:6], "big")
        before: int | None = None
        for _ in range(_PAGES_MAX):
            async with self._turn(scope):
                page = await self._history.newest(EventQuery(before, WAITING_MAX, scope, "", "", event_ms, event_ms + 1))
            for record in page.records:
                if record.partition != partition_of(wanted):
                    continue
                patterns = frozenset(patterns_of(record.type))
                for each in owed:
                    is_owed = each.after < record.position <= each.through and wants(each.subscription, record, patterns)
                    if is_owed and delivery_id(record.event_id, each.subscription.id, each.job_id) == wanted:
                        return self._waiting(each, record)
            before = page.next_before
            if before is None:
                return None
        return None


def _totals(owed: Iterable[Owed]) -> NotListed:
    subscriptions, total = set[str](), 0
    for each in owed:
        subscriptions.add(each.subscription.id)
        total += each.about
    return NotListed(len(subscriptions), total)
