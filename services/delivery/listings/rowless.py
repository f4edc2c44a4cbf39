"""Rowless: the deliveries that have no row in the ledger: their events wait in the log, or have ended there.

lane_modes → [rowless] → delivery_listings

Law 1: pure.
Law 2: a delivery has the same id here as later in its row.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from services.delivery.dispatch.lane import Lane
from services.delivery.dispatch.owed_ranges import about
from services.delivery.ledger.protocol import Listing
from services.delivery.ledger.rows import DoneRow, OpenRow
from services.delivery.model import State, SubscriptionStatus, delivery_id
from services.delivery.request.request_settings import Subscription
from services.eventlog.record import Record
from services.runtime.event_types import EVERY_TYPE, patterns_of


class Owed(NamedTuple):
    """The events above `after`, up to `through`, that a subscription wants and that have no row of it."""

    subscription: Subscription
    job_id: str
    after: int
    through: int
    about: int
    """An estimate of the number of deliveries."""


class Rowless(NamedTuple):
    """A delivery without a row."""

    id: bytes
    event_id: str
    partition: int
    position: int
    subscription_id: str
    consumer_id: str
    event_type: str
    accepted_ms: int
    state: State
    """PENDING: it waits in the log. EXHAUSTED or CANCELLED: it has ended there."""
    time_ms: int | None
    """When it will be exhausted if it goes on waiting, or when it has ended, in ms since 1970; None: unknown."""


Item = OpenRow | DoneRow | Rowless


class NotListed(NamedTuple):
    """The deliveries that wait in the log and are not on the page."""

    subscriptions: int
    about: int
    """An estimate of their number."""


def owed_of(lane: Lane, subscription: Subscription, recorded: int) -> Iterator[Owed]:
    """Yield what a lane owes, by what the ledger holds of its ranges. Everything up to the position `recorded` is in the ledger.

    Read the ledger's rows afterwards: what gets a row in between is then found twice, and nothing is missed.
    """
    for owed in lane.ranges:
        after = owed.at if owed.written is None else owed.written[0]
        through = recorded if owed.until is None else min(owed.until, recorded)
        if after is not None and after < through and owed.cancelled_through is None:
            yield Owed(subscription, owed.job_id, after, through, about(owed, after, through))


def wants(subscription: Subscription, record: Record, patterns: frozenset[str]) -> bool:
    """Return whether an event is for a subscription, as the router decides it; `patterns` are those of the event's type."""
    return (
        (not record.audience or record.audience == subscription.consumer_id)
        and (not subscription.source or subscription.source == record.source)
        and not patterns.isdisjoint(subscription.types or (EVERY_TYPE,))
    )


def may_want_type(subscription: Subscription, event_type: str) -> bool:
    """Return whether events of a type (empty: of any type) may be for a subscription."""
    return not event_type or not frozenset(patterns_of(event_type)).isdisjoint(subscription.types or (EVERY_TYPE,))


def is_off(subscription: Subscription) -> bool:
    """Return whether nothing is delivered to a subscription."""
    return subscription.status is SubscriptionStatus.OFF


def rowless(subscription: Subscription, job_id: str, record: Record, state: State, time_ms: int | None) -> Rowless:
    """Return the delivery of an event that has no row."""
    return Rowless(
        delivery_id(record.event_id, subscription.id, job_id),
        record.event_id,
        record.partition,
        record.position,
        subscription.id,
        subscription.consumer_id,
        record.type,
        record.accepted_ms,
        state,
        time_ms,
    )


def in_listing(item: Rowless, listing: Listing) -> bool:
    """Return whether a delivery is one that a listing asks for and that belongs on this page or a later one."""
    return (
        listing.scope.includes(item.consumer_id)
        and listing.state in {None, item.state}
        and listing.subscription_id in {"", item.subscription_id}
        and listing.event_id in {"", item.event_id}
        and listing.event_type in {"", item.event_type}
        and (listing.start_ms is None or item.accepted_ms >= listing.start_ms)
        and (listing.end_ms is None or item.accepted_ms < listing.end_ms)
        and (listing.before_id is None or item.id < listing.before_id)
    )


def merged(
    rows: Sequence[OpenRow | DoneRow], rows_end: bytes | None, others: Iterable[Rowless], limit: int
) -> tuple[list[Item], bytes | None]:
    """Return a page of rows and others, the newest event first, and before which id the next page begins; None: it is the last page.

    `rows` are all rows with ids from `rows_end` on (None: all rows that there are). Others below `rows_end` belong on a later page.
    A delivery that is found as a row and without a row got its row in between, so the row counts.
    """
    found = dict[bytes, Item]((other.id, other) for other in others if rows_end is None or other.id >= rows_end)
    found.update((row.id, row) for row in rows)
    page = [found[each] for each in sorted(found, reverse=True)]
    if len(page) > limit:
        return page[:limit], page[limit - 1].id
    return page, rows_end
