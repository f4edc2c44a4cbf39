"""Owed ranges: which events a lane that is behind has left to the log, and how far it has caught up with them.

log_follower, range_reader → [owed_ranges] → recorder → ledger

A lane is *live* while it owes nothing: routing queues each event. It is *behind* while it owes a range without an end: routing passes it
by, and it reads the log itself. It is *joining* once its range has an end: routing queues the events above that end behind the range.

Law 1: a range begins right below the first event that its lane was passed by with, and is written in the flush of that event's chunk.
Law 2: `at` only grows, and `until` is set once.
Law 3: what stands below a delivery that a flush writes is written in the same flush.
Law 4: pure.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from services.delivery.model import Delivery, OwedRange, Phase

HANDED_MAX = 500
"""How many deliveries of a range may be handed out and not written: what 256 attempts at once and a flush under way need."""
RANGES_MAX = 2
ALL = 1 << 62
"""A position that no event has: all events lie below."""
# A queued delivery is not settled, and has no attempt either: it can be let go.
_QUEUED = Phase.QUEUED


def is_behind(ranges: Sequence[OwedRange]) -> bool:
    """Return whether a lane with these ranges is behind: routing passes it by."""
    return bool(ranges) and ranges[-1].until is None


def is_joining(ranges: Sequence[OwedRange]) -> bool:
    """Return whether a lane with these ranges is joining: routing queues events above the end of its last range."""
    return bool(ranges) and ranges[-1].until is not None


def next_range(subscription_id: str, ranges: Sequence[OwedRange], now_ms: int, consumer_id: str = "") -> OwedRange:
    """Return the range that a lane of a consumer owes from the next event on; `ranges` are those that it owes already."""
    assert not is_behind(ranges), f"{subscription_id} is behind already"  # noqa: S101 - callers ask first
    return OwedRange(subscription_id, ranges[-1].seq + 1 if ranges else 0, opened_ms=now_ms, consumer_id=consumer_id)


def begin(owed: OwedRange, position: int) -> None:
    """Let a range begin with the event at a position."""
    owed.at = owed.read_through = position - 1


def close(owed: OwedRange, last: int) -> None:
    """Set the end of a range: the last event that is wholly routed, at the position `last`."""
    assert owed.until is None, f"the range of {owed.subscription_id} ends at {owed.until} already"  # noqa: S101 - until is set once
    owed.until = last


def is_read(owed: OwedRange) -> bool:
    """Return whether all of a range was handed out."""
    return owed.at is None or (owed.until is not None and owed.read_through >= owed.until)


def handed_out_through(ranges: Sequence[OwedRange]) -> int:
    """Return the position up to which all is handed out that a lane with these ranges owes."""
    return next((owed.read_through for owed in ranges if not is_read(owed)), ALL)


def is_done(owed: OwedRange) -> bool:
    """Return whether nothing of a range is left: all was handed out and is written."""
    return is_read(owed) and not owed.handed


def cut(deliveries: Iterable[Delivery]) -> int:
    """Return the highest position of those deliveries that cannot be let go: each has a row, an attempt, or a place in a flush."""
    kept = (delivery.position for delivery in deliveries if not _can_go(delivery))
    return max(kept, default=0)


def _can_go(delivery: Delivery) -> bool:
    return delivery.phase is _QUEUED and not delivery.recorded and (delivery.chunk is not None or delivery.owed is not None)


def take_back(owed: OwedRange, gone: Delivery) -> int:
    """Note that a delivery that was handed out is let go, and with it all that was handed out above it; return how many are."""
    assert owed.at is not None  # noqa: S101 - something was handed out
    before = len(owed.handed)
    while owed.handed and owed.handed[-1].position >= gone.position:
        owed.handed.pop()
    owed.read_through = min(owed.read_through, gone.position - 1)
    owed.is_waiting = False  # all of it may have been read
    return before - len(owed.handed)


def take_written(owed: OwedRange, is_waiting: Callable[[Delivery], bool]) -> Iterator[Delivery]:
    """Yield the deliveries of a range that a flush writes, in the order of positions, and move `at` behind the last of them.

    `is_waiting` returns whether a delivery may still wait for its end. Nothing is written from the first delivery on for which it is True.
    """
    handed = owed.handed
    while handed and not is_waiting(handed[0]):
        delivery = handed.popleft()
        delivery.owed = None
        yield delivery
    if owed.at is not None:
        owed.at = max(owed.at, handed[0].position - 1 if handed else owed.read_through)


def about(owed: OwedRange, after: int, through: int) -> int:
    """Estimate how many of the events above `after`, up to `through`, are owed, by the share of those that were read so far."""
    positions = max(0, through - after)
    return positions if owed.examined == 0 else min(positions, round(positions * owed.matched / owed.examined))


def overtake(owed: OwedRange, through: int) -> None:
    """Move a range behind the events that the log drops, since they have ended. All that was handed out of it must be written."""
    assert owed.at is not None  # noqa: S101 - it has begun
    owed.at, owed.overtaken = max(owed.at, through), 0
    owed.read_through = max(owed.read_through, through)


def note_page(owed: OwedRange, scanned_through: int, matched: int) -> None:
    """Note that a page was handed out: `matched` of the events above what was handed out before, up to `scanned_through`."""
    owed.examined += scanned_through - owed.read_through
    owed.matched += matched
    owed.read_through = scanned_through


def last_passed(position: int, through: str, subscription_id: str) -> int:
    """Return the last position with which a lane was passed by, if an event was routed last, through a subscription ("": to all)."""
    return position - 1 if through and subscription_id > through else position
