"""Ledger, over every engine: listings, and single deliveries by their id."""

import random

import pytest

from services.delivery.ledger.protocol import Flush, Ledger, Listing
from services.delivery.ledger.rows import DoneRow, OpenRow
from services.delivery.model import State
from services.runtime.consumer_scope import EVERYONE, OwnConsumer
from tests.delivery.ledger.deliveries import ALL, NOW_MS, delivery, finished, listed, pages, unfinished
from tests.delivery.ledger.stores import LedgerStore


def matches(row: OpenRow | DoneRow, listing: Listing) -> bool:
    """Return whether a row matches, by the definition of `Listing`."""
    state = State.PENDING if isinstance(row, OpenRow) else State(row.state)
    return (
        listing.scope.includes(row.consumer_id)
        and listing.state in {None, state}
        and listing.subscription_id in {"", row.subscription_id}
        and listing.event_id in {"", row.event_id}
        and listing.event_type in {"", row.event_type}
        and (listing.start_ms is None or row.accepted_ms >= listing.start_ms)
        and (listing.end_ms is None or row.accepted_ms < listing.end_ms)
    )


@pytest.mark.parametrize("seed", range(3))
async def test_a_listing_finds_what_matches_page_by_page(
    store: LedgerStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The listing covers unfinished rows and the finished rows of several days, newest event first, each row once."""
    chance = random.Random(seed)
    every: list[OpenRow | DoneRow] = []
    for number in range(120):
        changed = {"consumer_id": "con_" + chance.choice("cd") * 32, "event_type": chance.choice(("order.created", "order.paid"))}
        subscription = chance.choice("ab")
        if chance.random() < 0.4:
            every.append(unfinished(number, subscription, **changed))
        else:
            state = chance.choice((State.DELIVERED, State.EXHAUSTED, State.CANCELLED))
            every.append(finished(number, subscription, state, chance.randint(-2, 2), **changed))
    opened, ended = [row for row in every if isinstance(row, OpenRow)], [row for row in every if isinstance(row, DoneRow)]
    await ledger.flush(Flush(opened, finished=ended))
    for _ in range(40):
        listing = Listing(
            before_id=None,
            limit=chance.choice((1, 7, 200)),
            scope=chance.choice((EVERYONE, EVERYONE, OwnConsumer("con_" + "c" * 32))),
            state=chance.choice((None, None, *State)),
            subscription_id=chance.choice(("", "", "sub_" + "a" * 32)),
            event_id=chance.choice(("", "", "", chance.choice(every).event_id)),
            event_type=chance.choice(("", "", "order.paid")),
            start_ms=chance.choice((None, NOW_MS + chance.randrange(120), -5)),
            end_ms=chance.choice((None, NOW_MS + chance.randrange(120), 1 << 60)),
        )
        expected = sorted((row for row in every if matches(row, listing)), key=lambda row: row.id, reverse=True)
        store.bound_listings(monkeypatch, rows=chance.choice((1, 3, 1000)), steps=chance.choice((1, 3, 50)))
        found = await pages(ledger, listing)
        assert [row for page in found for row in page] == expected, listing
        assert all(len(page) <= listing.limit for page in found)


async def test_a_listing_sees_a_moving_delivery_once(ledger: Ledger) -> None:
    """A row that moves from unfinished to finished between two pages is on exactly one of them."""
    await ledger.flush(Flush([unfinished(number) for number in range(10)]))
    first = await ledger.page(ALL._replace(limit=5))
    moved = [finished(number) for number in range(10)]
    await ledger.flush(Flush(closed=[row.id for row in moved], finished=moved))
    second = await listed(ledger, ALL._replace(before_id=first.before_id))
    assert [row.position for row in (*first.rows, *second)] == list(range(9, -1, -1))


async def test_one_delivery_is_found_by_its_id(ledger: Ledger) -> None:
    """It is found whether it is finished or not, and on whatever day it ended, but not in another consumer's scope."""
    await ledger.flush(Flush([unfinished(1)], finished=[finished(2, day=-1), finished(3, day=1)]))
    for number, expected in ((1, unfinished(1)), (2, finished(2, day=-1)), (3, finished(3, day=1)), (5, None)):
        assert await ledger.find(EVERYONE, delivery(number).id) == expected
        assert await ledger.find(OwnConsumer("con_" + "c" * 32), delivery(number).id) == expected
        assert await ledger.find(OwnConsumer("con_" + "d" * 32), delivery(number).id) is None
