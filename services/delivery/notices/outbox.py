"""Outbox: the notices that the next flush writes, and how many notices of each consumer wait to be published.

dispatcher, recorder, registry_watch → [outbox: notice] → recorder → ledger → notice_publisher

Law 1: a notice is written by the flush that writes its transition, because both are gathered without a wait in between.
Law 2: at most `NOTICES_MAX` notices of a consumer wait. For the rest, one notice for each type tells how many were left out.
Law 3: the notice with the number is published only after it can change no more and the ledger has its last form.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import Counter as Metric

from services.delivery.ledger.rows import NoticeRow
from services.delivery.notices import notice as notices
from services.delivery.notices.notice import Notice, row_of

NOTICES_MAX = 1000
"""How many notices of one consumer wait to be published."""
EXHAUSTED_MAX = 900
"""How many of a consumer's notices may wait if one more tells of an exhausted delivery: the rest is for notices about subscriptions."""

_suppressed = Metric("hooktide_notices_suppressed_total", "Notices that found no room in the outbox; one notice tells their number.")


@dataclass(slots=True)
class _Overflow:
    """The notices of one type and consumer that have found no room."""

    first: Notice
    count: int = 1

    def notice(self) -> Notice:
        return notices.suppressed(self.first, self.count)


class Outbox:
    """The notices of one worker. Belongs to one event loop."""

    def __init__(self, flush_wanted: Callable[[], None]) -> None:
        """`flush_wanted` asks for a flush."""
        self._flush_wanted = flush_wanted
        self._gathered: list[Notice] = []
        self._taken: frozenset[str] = frozenset()
        """The ids in the flush that is under way."""
        self._waiting: Counter[str] = Counter()
        """How many notices of each consumer are gathered or in the ledger, without those that tell a number."""
        self._overflows: dict[tuple[str, str], _Overflow] = {}
        """By consumer and type. Their numbers may still grow."""
        self._sealed: dict[str, Notice] = {}
        """The notices with a number that can change no more, until a flush takes them; by their ids."""
        self._changed: set[tuple[str, str]] = set()
        self.stored = asyncio.Event()
        """Set when the ledger has got notices."""

    def resume(self, counts: Mapping[str, int]) -> None:
        """Note how many notices of each consumer an earlier process has left in the ledger."""
        self._waiting.update(counts)
        if counts:
            self.stored.set()

    def add(self, notice: Notice) -> None:
        """Take a notice for the next flush."""
        most = EXHAUSTED_MAX if notice.type == notices.EXHAUSTED else NOTICES_MAX
        if self._waiting[notice.consumer_id] < most:
            self._waiting[notice.consumer_id] += 1
            self._gathered.append(notice)
        else:
            self._suppress(notice)
        self._flush_wanted()

    def _suppress(self, notice: Notice) -> None:
        _suppressed.inc()
        key = (notice.consumer_id, notice.type)
        if key in self._overflows:
            self._overflows[key].count += 1
        else:
            self._overflows[key] = _Overflow(notice)
        self._changed.add(key)

    def __bool__(self) -> bool:
        """Return whether there are notices that no flush has taken."""
        return bool(self._gathered or self._changed or self._sealed)

    def take(self) -> list[NoticeRow]:
        """Return the rows for a flush that begins now; only one flush is under way at a time."""
        chosen = [*self._gathered, *(self._overflows[key].notice() for key in self._changed), *self._sealed.values()]
        self._gathered.clear()
        self._changed.clear()
        self._sealed.clear()
        self._taken = frozenset([each.id for each in chosen])
        return [row_of(each) for each in chosen]

    def flushed(self) -> None:
        """Note that the flush which took notices last has succeeded."""
        if self._taken:
            self._taken = frozenset()
            self.stored.set()

    def seal(self) -> Collection[str]:
        """End the count of those consumers that have room again; return the ids that must not be published yet.

        A row of the ledger may be published if its id is not among them at a time before the row is read.
        """
        for key in [key for key in self._overflows if self._waiting[key[0]] < EXHAUSTED_MAX // 2]:
            final = self._overflows.pop(key).notice()
            if key in self._changed:
                self._changed.discard(key)
                self._sealed[final.id] = final
                self._flush_wanted()
        return self._taken | self._sealed.keys() | {each.notice().id for each in self._overflows.values()}

    def forgotten(self, published: Iterable[Notice]) -> None:
        """Note that notices have left the ledger."""
        for notice in published:
            if not notice.subject:  # the number of others, which did not count
                continue
            if self._waiting[notice.consumer_id] > 1:
                self._waiting[notice.consumer_id] -= 1
            else:
                del self._waiting[notice.consumer_id]
