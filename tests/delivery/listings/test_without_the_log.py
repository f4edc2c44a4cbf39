"""Delivery listings, over fakes: what they answer when the log is away, slow or busy, and how much they read."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from services.delivery.dispatch.lane import Lane
from services.delivery.ledger.protocol import Flush, Ledger
from services.delivery.ledger.rows import EndedRow
from services.delivery.listings import delivery_listings
from services.delivery.listings.delivery_listings import DeliveryListings
from services.delivery.listings.rowless import NotListed, Rowless
from services.delivery.model import OwedRange, State, SubscriptionStatus, delivery_id
from services.delivery.request.request_settings import RequestSettings, Subscription
from services.delivery.subscriptions.replica import Replica
from services.eventlog.errors import EventLogError, LogUnavailableError
from services.eventlog.filtered_read import ReadPage, ReadQuery
from services.eventlog.history import EventPage, EventQuery
from services.eventlog.record import Record, ShardPosition
from services.runtime.consumer_scope import EVERYONE, OwnConsumer, Scope
from services.runtime.errors import Failure, Reason
from tests.delivery.ledger.deliveries import ALL, NOW_MS, record, unfinished
from tests.support.waiting import until

OWNER, OTHER = "con_" + "c" * 32, "con_" + "d" * 32
HEAD = 50


def wish(letter: str, consumer_id: str = OWNER, status: SubscriptionStatus = SubscriptionStatus.PAUSED) -> Subscription:
    """Return a subscription to all events."""
    return Subscription("sub_" + letter * 32, consumer_id, "https://sink.test/", (), "", status, 1, RequestSettings())


class Log:
    """A log with one event in each position up to `HEAD`, which may fail."""

    def __init__(self) -> None:
        self.failure: EventLogError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0
        self.most_under_way = 0
        self.reads = 0

    async def _answer(self) -> None:
        self.reads += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.failure is not None:
            raise self.failure

    async def read(self, query: ReadQuery) -> ReadPage:
        """Return ten events at most, or none of the next ten."""
        await self._answer()
        after, through = query.after[0].position, query.through[0].position
        scanned = min(through, after + min(10, query.records_max))
        return ReadPage([record(each) for each in range(after + 1, scanned + 1)], [ShardPosition(0, scanned)], [ShardPosition(0, 1)], "log")

    async def locate(self, scope: Scope, event_id: str) -> Record | None:
        """Return the event."""
        del scope
        await self._answer()
        return next((found for number in range(1, HEAD + 1) if (found := record(number)).event_id == event_id), None)

    async def newest(self, query: EventQuery) -> EventPage:
        """Return the events of a span of time, one on each page."""
        await self._answer()
        assert query.start_ms is not None
        assert query.end_ms is not None
        # These events' ids name partition 0.
        found = [record(each)._replace(partition=0) for each in range(HEAD, 0, -1) if query.start_ms <= NOW_MS + each < query.end_ms]
        begin = query.before or 0
        return EventPage(found[begin : begin + 1], begin + 1 if begin + 1 < len(found) else None)


class World:
    """Listings over a ledger, with lanes that are behind."""

    def __init__(self, ledger: Ledger, *subscriptions: Subscription) -> None:
        self.ledger, self.log, self.replica = ledger, Log(), Replica()
        self.lanes: dict[str, Lane] = {}
        for each in subscriptions:
            self.replica.router.put(each)
        table: Any = Table(self.lanes)
        self.listings = DeliveryListings(
            ledger, self.log, self.log, table, self.replica, recorded_through=lambda _: HEAD, waits_s=lambda: 3600.0
        )

    def owes(self, subscription: Subscription, at: int, until: int | None = None) -> None:
        """Let a subscription owe a range."""
        lane = self.lanes.setdefault(subscription.id, Lane(subscription.id))
        lane.ranges.append(OwedRange(subscription.id, len(lane.ranges), at=at, until=until))


class Table:
    """The lanes, as the listings ask for them."""

    def __init__(self, lanes: dict[str, Lane]) -> None:
        self._lanes = lanes
        self.find: Callable[[str], Lane | None] = lanes.get

    def __iter__(self) -> Any:
        return iter(list(self._lanes.values()))


@pytest.fixture
def world(ledger: Ledger) -> World:
    """Two consumers with a lane each: A owes the events above 30, B those above 45."""
    a, b = wish("a"), wish("b", OTHER)
    world = World(ledger, a, b)
    world.owes(a, 30)
    world.owes(b, 45)
    return world


def positions(items: list[Any]) -> list[int]:
    return [item.position for item in items]


async def test_without_the_log_a_list_has_the_rows_alone_and_says_so(world: World) -> None:
    await world.ledger.flush(Flush([unfinished(7)]))
    world.log.failure = LogUnavailableError("away")
    for listing in (ALL._replace(subscription_id=wish("a").id), ALL._replace(event_id=record(7).event_id)):
        page = await world.listings.page(listing)
        assert (positions(page.items), page.partial) == ([7], True)
        assert page.not_listed.subscriptions == (1 if listing.subscription_id else 2)
    page = await world.listings.page(ALL)
    assert (positions(page.items), page.partial, page.not_listed) == ([7], False, NotListed(2, 25)), "it asks the log nothing"


async def test_a_log_that_goes_away_in_between_leaves_the_rows_alone(world: World) -> None:
    """What was read before is left out, because the count says how much waits in all."""
    read = world.log.read

    async def once(query: ReadQuery) -> ReadPage:
        page = await read(query)
        world.log.failure = LogUnavailableError("away")
        return page

    world.log.read = once  # type: ignore[method-assign]  # fails from the second read on
    page = await world.listings.page(ALL._replace(subscription_id=wish("a").id))
    assert (page.items, page.partial, page.not_listed) == ([], True, NotListed(1, 20))


async def test_without_the_log_nobody_knows_whether_a_delivery_waits(world: World) -> None:
    """A delivery of a slot without a lane that is behind is certain not to be there."""
    waits = delivery_id(record(40).event_id, wish("a").id)
    found = await world.listings.find(EVERYONE, waits)
    assert isinstance(found, Rowless)
    assert (found.position, found.state, found.time_ms) == (40, State.PENDING, NOW_MS + 40 + 3_600_000)
    world.log.failure = LogUnavailableError("away")
    with pytest.raises(Failure) as refused:
        await world.listings.find(EVERYONE, waits)
    assert refused.value.reason is Reason.UNAVAILABLE
    assert await world.listings.find(EVERYONE, delivery_id(record(40).event_id, wish("e").id)) is None
    assert await world.listings.find(OwnConsumer(OTHER), waits) is None


async def test_a_delivery_that_waits_is_found_by_its_id_and_no_other(world: World) -> None:
    assert await world.listings.find(EVERYONE, delivery_id(record(30).event_id, wish("a").id)) is None, "not owed"
    assert await world.listings.find(EVERYONE, delivery_id(record(40).event_id, "sub_" + "c" * 30 + "aa")) is None, "another of the slot"
    assert await world.listings.find(EVERYONE, delivery_id(record(HEAD + 1).event_id, wish("a").id)) is None, "no such event"


async def test_a_slow_log_keeps_a_list_for_a_bounded_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_listings, "_LOG_S", 0.05)
    world.log.gate.clear()
    page = await world.listings.page(ALL._replace(subscription_id=wish("a").id))
    assert (page.items, page.partial) == ([], True)


async def test_consumers_take_turns_at_the_log(world: World) -> None:
    world.log.gate.clear()
    lists = [
        asyncio.create_task(world.listings.page(ALL._replace(scope=OwnConsumer(OWNER), subscription_id=wish("a").id))) for _ in range(5)
    ]
    lists.append(asyncio.create_task(world.listings.page(ALL._replace(scope=OwnConsumer(OTHER), subscription_id=wish("b").id))))
    await until(lambda: world.log.under_way == 2, 5, "two reads at once")
    world.log.gate.set()
    pages = await asyncio.gather(*lists)
    assert [len(page.items) for page in pages] == [20] * 5 + [5]
    assert world.log.most_under_way == 2
    assert not any(page.partial for page in pages)


async def test_a_list_reads_a_bounded_part_of_the_log(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is counted by its share of the range."""
    world = World(ledger, wish("a"))
    world.owes(wish("a"), 0, until=20)
    world.owes(wish("a"), 20)
    listing = ALL._replace(subscription_id=wish("a").id)
    page = await world.listings.page(listing)
    assert (positions(page.items), page.not_listed) == (list(range(HEAD, 0, -1)), NotListed(0, 0))
    monkeypatch.setattr(delivery_listings, "_READS_MAX", 1)
    page = await world.listings.page(listing)
    assert positions(page.items) == [*range(30, 20, -1), *range(10, 0, -1)]
    assert page.not_listed == NotListed(1, 30)
    monkeypatch.setattr(delivery_listings, "WAITING_MAX", 12)
    page = await world.listings.page(listing)
    assert positions(page.items) == [22, 21, *range(10, 0, -1)]
    assert page.not_listed == NotListed(1, 38)


async def test_an_event_that_ended_without_a_row_is_listed_while_its_subscription_exists(ledger: Ledger) -> None:
    off = wish("a", status=SubscriptionStatus.OFF)
    world = World(ledger, off, wish("b", OTHER))
    world.owes(off, 0)
    ended = [
        EndedRow(off.id, "", State.CANCELLED, (10,), (20,), 10, NOW_MS + 99, OWNER),
        EndedRow(wish("b").id, "", State.EXHAUSTED, (0,), (15,), 15, NOW_MS + 98, OTHER),
        EndedRow("sub_" + "e" * 32, "", State.CANCELLED, (0,), (50,), 50, NOW_MS, OWNER),
    ]
    await ledger.flush(Flush(ended=ended))

    async def states(position: int, **filters: object) -> set[tuple[str, State, int | None]]:
        page = await world.listings.page(ALL._replace(event_id=record(position).event_id, **filters))  # type: ignore[arg-type]  # fields by name
        assert page.not_listed == NotListed(0, 0)
        return {(item.subscription_id, item.state, item.time_ms) for item in page.items if isinstance(item, Rowless)}

    cancelled, exhausted = (off.id, State.CANCELLED, NOW_MS + 99), (wish("b").id, State.EXHAUSTED, NOW_MS + 98)
    assert await states(12) == {cancelled, exhausted}
    assert await states(12, state=State.EXHAUSTED) == {exhausted}
    assert await states(12, scope=OwnConsumer(OWNER)) == {cancelled}
    assert await states(12, state=State.PENDING) == set(), "to a subscription that is off nothing is owed"
    assert await states(5) == {exhausted}
    assert await states(30) == set()
    assert (await world.listings.page(ALL)).ended == {State.CANCELLED: 60, State.EXHAUSTED: 15}
    assert (await world.listings.page(ALL._replace(state=State.EXHAUSTED))).ended == {State.EXHAUSTED: 15}
    assert (await world.listings.page(ALL._replace(state=State.DELIVERED))).ended == {}


async def test_an_event_that_the_log_does_not_hold_has_its_rows(world: World) -> None:
    gone = unfinished(HEAD + 3)
    await world.ledger.flush(Flush([gone]))
    page = await world.listings.page(ALL._replace(event_id=gone.event_id))
    assert (positions(page.items), page.partial) == ([HEAD + 3], False)
    reads = world.log.reads
    assert (await world.listings.page(ALL._replace(event_id="evt_' OR 1=1 --"))).items == []
    assert world.log.reads == reads, "the log is not asked for what is no id"


async def test_many_lanes_are_looked_at_in_slices(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_listings, "_LANES_AT_ONCE", 3)
    wishes = [wish(letter) for letter in "0123456789"]
    world = World(ledger, *wishes)
    for each in wishes:
        world.owes(each, 0)
    ticks = SimpleNamespace(count=0)

    async def tick() -> None:
        while True:
            ticks.count += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    page = await world.listings.page(ALL._replace(event_id=record(1).event_id, limit=4))
    ticking.cancel()
    assert ticks.count >= 3
    rest = await world.listings.page(ALL._replace(event_id=record(1).event_id, before_id=page.before_id))
    ids = [item.id for item in [*page.items, *rest.items]]
    assert len(page.items) == 4
    by_one, before = list[bytes](), None
    while len(by_one) < len(wishes):
        page = await world.listings.page(ALL._replace(event_id=record(1).event_id, before_id=before, limit=1))
        by_one += [item.id for item in page.items]
        before = page.before_id
    assert by_one == ids
    assert before is None
    assert ids == sorted((delivery_id(record(1).event_id, each.id) for each in wishes), reverse=True)
