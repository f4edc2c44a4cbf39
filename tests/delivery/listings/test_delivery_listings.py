"""Delivery listings: what callers see of deliveries whose events wait in the log, with the real services around delivery."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
import pytest
from hooktide.delivery.v1 import delivery_pb2

from services.delivery.listings.delivery_listings import WAITING_MAX
from services.runtime.errors import Reason
from services.runtime.ids import new_id
from tests.delivery.system import Delivering, State, System
from tests.delivery.test_server import get, reason_of
from tests.support.events import cloud_event
from tests.support.waiting import until_so
from tests.support.webhook_receivers.receiver import Receiver

PENDING, DELIVERED, CANCELLED = State.DELIVERY_STATE_PENDING, State.DELIVERY_STATE_DELIVERED, State.DELIVERY_STATE_CANCELLED
ROWS, EVENTS = 3, 12


class Behind(NamedTuple):
    """A paused subscription, which has some rows and owes the rest of the events."""

    delivering: Delivering
    subscription_id: str
    events: list[str]
    """In the order in which they were accepted."""


@asynccontextmanager
async def behind(system: System, hooks: Receiver, events: int = EVENTS) -> AsyncIterator[Behind]:
    """Run delivery with a paused subscription for which `ROWS` events have rows, and all further ones wait in the log."""
    async with system.delivering(HOOKTIDE_DELIVERY_LANE_PENDING_MAX=str(ROWS)) as delivering:
        id_ = (await system.subscribe(hooks.url("/paused"), "order.*")).subscription.id
        await system.registry.pause(system.consumer_id, id_)
        published: list[str] = []
        for _ in range(events):
            published += await system.publish(cloud_event())

        async def all_wait() -> bool:
            page = await delivering.page()
            return len(page.deliveries) + page.not_listed.about == events

        await until_so(all_wait)
        yield Behind(delivering, id_, published)


async def walk(delivering: Delivering, page_size: int, **filters: object) -> list[delivery_pb2.Delivery]:
    """Return the deliveries of all pages."""
    found: list[delivery_pb2.Delivery] = []
    token = ""
    while True:
        page = await delivering.page(page_size=page_size, page_token=token, **filters)
        assert len(page.deliveries) <= page_size
        found += page.deliveries
        token = page.next_page_token
        if not token:
            return found


def assert_listed(found: list[delivery_pb2.Delivery], events: list[str]) -> None:
    """Check that a list has one delivery of each event, the newest event first."""
    assert len(found) == len(events)
    assert {each.event_id for each in found} == set(events)
    assert [each.id for each in found] == sorted((each.id for each in found), reverse=True)


async def test_what_waits_in_the_log_is_listed_with_the_ids_under_which_it_is_delivered(system: System, hooks: Receiver) -> None:
    async with behind(system, hooks) as (delivering, subscription_id, events):
        listed = await delivering.deliveries(subscription_id=subscription_id)
        assert_listed(listed, events)
        assert {each.state for each in listed} == {PENDING}
        waiting = [each for each in listed if each.waiting]
        assert len(waiting) == EVENTS - ROWS, "the first few have rows"
        assert all(each.expire_time.ToMilliseconds() - each.event_time.ToMilliseconds() == 168 * 3_600_000 for each in waiting)
        assert not any(each.HasField("expire_time") for each in listed if not each.waiting)
        by_event = {each.event_id: await delivering.deliveries(event_id=each.event_id, state=PENDING) for each in listed}
        assert {event_id: [each.id for each in found] for event_id, found in by_event.items()} == {
            each.event_id: [each.id] for each in listed
        }
        for each in waiting:
            found = await delivering.delivery(each.id)
            assert (found.event_id, found.subscription_id, found.waiting) == (each.event_id, subscription_id, True)
        await system.registry.resume(system.consumer_id, subscription_id)
        delivered = await delivering.until(EVENTS, subscription_id=subscription_id, state=DELIVERED)
        assert [each.id for each in delivered] == [each.id for each in listed]


@pytest.mark.parametrize("page_size", [1, 2, 5, 11, 12])
async def test_pages_pass_from_what_waits_to_rows_without_a_gap(system: System, hooks: Receiver, page_size: int) -> None:
    async with behind(system, hooks) as (delivering, subscription_id, events):
        found = await walk(delivering, page_size, subscription_id=subscription_id)
        assert_listed(found, events)


async def test_a_page_goes_on_below_its_token_after_what_waited_has_got_rows(system: System, hooks: Receiver) -> None:
    """A token names the event after which the list goes on, whatever has become of the events by then."""
    async with behind(system, hooks) as (delivering, subscription_id, events):
        first = await delivering.page(subscription_id=subscription_id, page_size=4)
        await system.registry.resume(system.consumer_id, subscription_id)
        await delivering.until(EVENTS, subscription_id=subscription_id, state=DELIVERED)
        rest = await delivering.deliveries(subscription_id=subscription_id, page_token=first.next_page_token)
        assert_listed([*first.deliveries, *rest], events)


async def test_a_list_of_all_counts_what_waits(system: System, hooks: Receiver) -> None:
    async with behind(system, hooks) as (delivering, subscription_id, _):
        for filters in ({}, {"state": PENDING}, {"consumer_id": system.consumer_id}, {"event_type": "order.created"}):
            page = await delivering.page(**filters)
            assert not any(each.waiting for each in page.deliveries)
            assert (page.not_listed.subscriptions, page.not_listed.about) == (1, EVENTS - ROWS), filters
        for filters in ({"state": DELIVERED}, {"state": CANCELLED}, {"consumer_id": new_id("con")}, {"event_type": "invoice.paid"}):
            assert not (await delivering.page(**filters)).HasField("not_listed"), filters
        assert await delivering.deliveries(subscription_id=subscription_id, state=DELIVERED) == []


async def test_the_list_of_a_subscription_reads_its_next_200_events(system: System, hooks: Receiver) -> None:
    async with behind(system, hooks, events=WAITING_MAX + 10) as (delivering, subscription_id, events):
        found = await walk(delivering, 200, subscription_id=subscription_id)
        assert_listed(found, events[: ROWS + WAITING_MAX])
        page = await delivering.page(subscription_id=subscription_id)
        assert (page.not_listed.subscriptions, page.not_listed.about) == (1, 10 - ROWS)


async def test_the_metrics_count_lanes_that_are_behind_and_what_waits_for_them(system: System, hooks: Receiver) -> None:
    async with behind(system, hooks) as (delivering, subscription_id, _), aiohttp.ClientSession() as http:

        async def shows(*lines: str) -> bool:
            async with http.get(f"http://{delivering.admin}/metrics") as answer:
                return set(lines) <= set((await answer.text()).splitlines())

        await until_so(lambda: shows('hooktide_lanes{state="behind"} 1.0', f"hooktide_waiting_deliveries {EVENTS - ROWS}.0"))
        await system.registry.resume(system.consumer_id, subscription_id)
        await until_so(lambda: shows('hooktide_lanes{state="behind"} 0.0', "hooktide_waiting_deliveries 0.0"))


async def test_filters_hold_for_what_waits(system: System, hooks: Receiver) -> None:
    async with behind(system, hooks) as (delivering, subscription_id, events):
        (newest,) = await delivering.deliveries(subscription_id=subscription_id, page_size=1)
        at = newest.event_time
        since = await delivering.deliveries(subscription_id=subscription_id, start_time=at)
        before = await delivering.deliveries(subscription_id=subscription_id, end_time=at)
        assert newest.id in {each.id for each in since}
        assert_listed([*since, *before], events)
        assert await delivering.deliveries(subscription_id=subscription_id, event_type="invoice.paid") == []
        assert len(await delivering.deliveries(subscription_id=subscription_id, event_type="order.created")) == EVENTS
        assert len(await delivering.deliveries(subscription_id=subscription_id, event_id=events[-1])) == 1
        assert await delivering.deliveries(subscription_id=new_id("sub"), event_id=events[-1]) == []


async def test_a_consumer_sees_of_what_waits_only_its_own(system: System, hooks: Receiver) -> None:
    other = await system.registry.consumer("Bank")
    async with behind(system, hooks) as (delivering, subscription_id, events):
        (waits,) = await delivering.deliveries(subscription_id=subscription_id, event_id=events[-1])
        assert waits.waiting
        for filters in ({"event_id": events[-1]}, {"subscription_id": subscription_id}, {"state": PENDING}):
            page = await delivering.page(consumer_id=other, **filters)
            assert (list(page.deliveries), page.HasField("not_listed"), page.HasField("ended")) == ([], False, False)
        assert await reason_of(get(delivering.stub, other, waits.id)) is Reason.DELIVERY_NOT_FOUND
        await get(delivering.stub, system.consumer_id, waits.id)


async def test_after_a_deletion_its_owner_and_no_one_else_is_told_of_what_waited(system: System, hooks: Receiver) -> None:
    other = await system.registry.consumer("Bank")
    async with behind(system, hooks) as (delivering, subscription_id, events):
        await system.registry.delete(system.consumer_id, subscription_id)

        async def told() -> bool:
            return (await delivering.page(subscription_id=subscription_id)).ended.cancelled == EVENTS - ROWS

        await until_so(told)
        await delivering.until(ROWS, subscription_id=subscription_id, state=CANCELLED)
        page = await delivering.page(consumer_id=system.consumer_id, state=CANCELLED)
        assert (page.ended.cancelled, page.ended.exhausted) == (EVENTS - ROWS, 0)
        assert not (await delivering.page(state=PENDING)).HasField("ended")
        assert not (await delivering.page(consumer_id=other)).HasField("ended")
        assert not (await delivering.page(consumer_id=other, subscription_id=subscription_id)).HasField("ended")
        assert not (await delivering.page()).HasField("not_listed")
        assert [each.subscription_id for each in await delivering.deliveries(event_id=events[-1])] != [subscription_id]
