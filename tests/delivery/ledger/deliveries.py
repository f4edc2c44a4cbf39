"""Deliveries: rows of the ledger for tests, and reads of whole listings."""

from dataclasses import replace

from services.delivery.ledger.protocol import FIRST_GROUP, GroupCursor, Ledger, Listing, ShardCursor
from services.delivery.ledger.rows import DoneRow, OpenRow, done_row, open_row
from services.delivery.model import Delivery, State, delivery_id
from services.eventlog.record import PARTITIONS, Record
from services.runtime.consumer_scope import EVERYONE

DAY_MS = 86_400_000
NOW_MS = 20_834 * DAY_MS
SUBSCRIPTION = "sub_" + "a" * 32
ALL = Listing(None, 1000, EVERYONE, None, "", "", "", None, None)


def delivery(number: int, subscription: str = "a", **changed: object) -> Delivery:
    """Return a delivery of event number `number`, accepted in the millisecond of that number."""
    event_id = f"evt_{NOW_MS + number:012x}7000{'8':0<16}"
    subscription_id = "sub_" + subscription * 32
    made = Delivery(
        id=delivery_id(event_id, subscription_id),
        event_id=event_id,
        shard=0,
        partition=number % PARTITIONS,
        position=number,
        event_type="order.created",
        accepted_ms=NOW_MS + number,
        subscription_id=subscription_id,
        consumer_id="con_" + "c" * 32,
        revision=3,
        event=None,
    )
    return replace(made, **changed)  # type: ignore[arg-type]  # fields by name


def unfinished(number: int, subscription: str = "a", **changed: object) -> OpenRow:
    """Return the row of an unfinished delivery."""
    return open_row(delivery(number, subscription, **changed))


def finished(number: int, subscription: str = "a", state: State = State.DELIVERED, day: int = 0, **changed: object) -> DoneRow:
    """Return the row of a delivery that has ended, `day` days after the day of `NOW_MS`."""
    return done_row(delivery(number, subscription, state=state, finished_ms=NOW_MS + day * DAY_MS, **changed))


def record(number: int) -> Record:
    """Return the event of a delivery."""
    of = delivery(number)
    return Record(of.shard, of.partition, of.position, of.event_id, of.event_type, "/shop", "", of.accepted_ms, b"\x00\xff")


def cursor_at(position: int, event_id: str = "", through: str = "") -> GroupCursor:
    """Return the cursor of the first group in shard 0."""
    return GroupCursor(FIRST_GROUP, (ShardCursor(0, position, event_id, through),))


async def listed(ledger: Ledger, listing: Listing = ALL) -> list[OpenRow | DoneRow]:
    """Return the rows of all pages of a listing."""
    return [row for page in await pages(ledger, listing) for row in page]


async def pages(ledger: Ledger, listing: Listing) -> list[list[OpenRow | DoneRow]]:
    """Return the pages of a listing."""
    found = list[list[OpenRow | DoneRow]]()
    while True:
        rows, before_id = await ledger.page(listing)
        found.append(rows)
        if before_id is None:
            return found
        listing = listing._replace(before_id=before_id)
