"""Expiry warnings: tells owners before retention drops events that wait for their subscriptions in the log.

lanes → [expiry_warnings] → transition_reports → outbox

Law 1: a warning names the oldest event that really waits: one that the subscription's filter matches.
Law 2: a pass costs one read of the log if nothing is about to expire, and at most `READS_MAX` reads in any case. The next pass goes on.
Law 3: a subscription is warned at most once in each span of warning, however many of its events expire.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from services.delivery.request.request_settings import Subscription
from services.eventlog.errors import EventLogError
from services.eventlog.filtered_read import ReadQuery
from services.eventlog.protocol import EventReader
from services.eventlog.record import Record, ShardPosition

READS_MAX = 200
EVERY_S = 600.0
# A warning comes when a seventh of the log's retention is left: a day of seven.
_SHARE_LEFT = 7
_EVERY_TYPE = ("*", "hooktide.*")


class Waiting(NamedTuple):
    """The events that wait in the log for a subscription."""

    subscription: Subscription
    at: int
    """The position after which they begin."""


class RaiseExpiring(Protocol):
    """Takes a warning; see `TransitionReports.raise_expiring`."""

    def __call__(self, subscription: Subscription, at: str, *, waiting_since_ms: int, expires_ms: int) -> None:
        """Note that the log will soon drop events that wait for a subscription."""
        ...


@dataclass(slots=True)
class _Known:
    """What is known of the events that wait for a subscription."""

    revision: int
    through: int
    """No event up to here matches, except `first`, which is the event here."""
    first: Record | None = None
    warned_ms: int | None = None
    """The acceptance of the event that the latest warning named."""


class ExpiryWarnings:
    """Looks at the lanes of one worker that are behind."""

    def __init__(
        self,
        log: EventReader,
        waiting: Callable[[], Iterable[Waiting]],
        raise_expiring: RaiseExpiring,
        *,
        age_ms: Callable[[int], int],
        log_retention_s: Callable[[], float],
    ) -> None:
        """`waiting` returns the lanes that are behind; `age_ms` an event's age, 0 while clocks are in doubt (`DueClock.age_ms`)."""
        self._log = log
        self._waiting = waiting
        self._raise_expiring = raise_expiring
        self._age_ms = age_ms
        self._log_retention_s = log_retention_s
        self._known: dict[str, _Known] = {}

    async def run(self) -> None:
        """Look for ever, with a pause after each pass."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.step()

    async def step(self) -> None:
        """Look once at the lanes whose events are oldest; if the log cannot be read, the next pass tries again."""
        lanes = [(self._known_of(each), each.subscription) for each in self._waiting()]
        self._known = {subscription.id: known for known, subscription in lanes}
        reads = READS_MAX
        try:
            for known, subscription in sorted(lanes, key=lambda lane: lane[0].through):
                if known.first is None:
                    reads -= 1
                    following = await self._first(ReadQuery([ShardPosition(0, known.through)], types=_EVERY_TYPE, records_max=1))
                    if following is None or not self._is_old(following):
                        return  # no other lane has older events, because positions grow with time
                    reads -= await self._find_first(known, subscription, reads)
                self._warn(known, subscription)
                if reads <= 0:
                    return
        except EventLogError:
            return

    def _known_of(self, waiting: Waiting) -> _Known:
        """Return what is known of a lane, as far as it is still true."""
        subscription, at = waiting
        known = self._known.get(subscription.id)
        if known is None or known.revision != subscription.revision or known.through <= at:
            return _Known(subscription.revision, at, warned_ms=None if known is None else known.warned_ms)
        return known

    async def _find_first(self, known: _Known, subscription: Subscription, reads_max: int) -> int:
        """Find the first event that waits; return how many reads it took. The search goes on in the next pass where it has ended."""
        for reads in range(1, max(1, reads_max) + 1):
            query = ReadQuery(
                [ShardPosition(0, known.through)],
                types=subscription.types,
                source=subscription.source,
                audiences=("", subscription.consumer_id),
                records_max=1,
            )
            page = await self._log.read(query)
            scanned = page.scanned_through[0].position
            known.first = page.records[0] if page.records else None
            if known.first is not None or scanned <= known.through:
                known.through = max(known.through, scanned)
                return reads
            known.through = scanned
        return reads_max

    async def _first(self, query: ReadQuery) -> Record | None:
        page = await self._log.read(query)
        return page.records[0] if page.records else None

    def _is_old(self, record: Record) -> bool:
        retention_ms = self._log_retention_s() * 1000
        return self._age_ms(record.accepted_ms) >= retention_ms - retention_ms / _SHARE_LEFT

    def _warn(self, known: _Known, subscription: Subscription) -> None:
        if known.first is None or not self._is_old(known.first):
            return
        accepted_ms, retention_ms = known.first.accepted_ms, int(self._log_retention_s() * 1000)
        if known.warned_ms is not None and accepted_ms < known.warned_ms + retention_ms // _SHARE_LEFT:
            return
        known.warned_ms = accepted_ms
        self._raise_expiring(subscription, str(known.first.position), waiting_since_ms=accepted_ms, expires_ms=accepted_ms + retention_ms)
