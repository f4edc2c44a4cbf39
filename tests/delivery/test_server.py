"""Server: what services read of deliveries, and in whose name."""

from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from hooktide.delivery.v1 import delivery_pb2, delivery_pb2_grpc

from services.delivery.ledger.protocol import Flush, Ledger
from services.delivery.listings.delivery_listings import DeliveryListings
from services.delivery.server import DeliveryServer
from services.delivery.subscriptions.replica import Replica
from services.runtime.errors import Failure, Reason, failure_from_rpc
from services.runtime.ids import id_text, new_id
from services.runtime.paging import page_token
from services.runtime.rpc.channel_and_server import service_metadata
from tests.delivery.ledger.deliveries import unfinished
from tests.delivery.system import State, System
from tests.support.events import cloud_event
from tests.support.system.registry import TOKEN
from tests.support.webhook_receivers.receiver import Receiver

DELIVERED, PENDING, CANCELLED = State.DELIVERY_STATE_DELIVERED, State.DELIVERY_STATE_PENDING, State.DELIVERY_STATE_CANCELLED


async def get(stub: "delivery_pb2_grpc.DeliveryServiceAsyncStub", consumer_id: str, delivery_id: str, token: str = TOKEN) -> object:
    request = delivery_pb2.GetDeliveryRequest(consumer_id=consumer_id, id=delivery_id)
    return await stub.GetDelivery(request, metadata=service_metadata(token))


async def list_(stub: "delivery_pb2_grpc.DeliveryServiceAsyncStub", consumer_id: str, _delivery_id: str, token: str = TOKEN) -> object:
    return await stub.ListDeliveries(delivery_pb2.ListDeliveriesRequest(consumer_id=consumer_id), metadata=service_metadata(token))


async def reason_of(call: Awaitable[object]) -> Reason:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure_from_rpc(caught.value).reason


async def test_a_consumer_reads_its_own_deliveries_and_no_others(system: System, hooks: Receiver) -> None:
    """Every call hides another consumer's delivery as if it did not exist."""
    other_id = await system.registry.consumer("Bank")
    async with system.delivering() as delivering:
        await system.subscribe(hooks.url(), "order.*")
        await system.subscribe(hooks.url(), "order.*", consumer_id=other_id)
        (event_id,) = await system.publish(cloud_event("1"))
        by_owner = {delivery.consumer_id: delivery for delivery in await delivering.until(2, state=DELIVERED)}
        assert set(by_owner) == {system.consumer_id, other_id}
        for consumer_id, delivery in by_owner.items():
            own = await delivering.deliveries(consumer_id=consumer_id)
            assert [each.id for each in own] == [delivery.id]
            assert [each.id for each in await delivering.deliveries(consumer_id=consumer_id, event_id=event_id)] == [delivery.id]
            foreign = by_owner[other_id if consumer_id == system.consumer_id else system.consumer_id]
            assert await delivering.deliveries(consumer_id=consumer_id, subscription_id=foreign.subscription_id) == []
            assert await reason_of(get(delivering.stub, consumer_id, foreign.id)) is Reason.DELIVERY_NOT_FOUND
        stranger = new_id("con")
        assert await delivering.deliveries(consumer_id=stranger) == []
        for delivery in by_owner.values():
            assert await reason_of(get(delivering.stub, stranger, delivery.id)) is Reason.DELIVERY_NOT_FOUND


async def test_a_call_says_for_whom_and_shows_that_it_comes_from_a_service(system: System) -> None:
    async with system.delivering() as delivering:
        for call in (get, list_):
            for consumer_id in ("", "con_", "sub_" + "a" * 32, "con_' OR 1=1 --"):
                assert await reason_of(call(delivering.stub, consumer_id, new_id("dlv"))) is Reason.INVALID_ARGUMENT
            for token in ("", TOKEN[:-1], TOKEN + "x", system.emitter_key):
                refused = await reason_of(call(delivering.stub, system.consumer_id, new_id("dlv"), token))
                assert refused is Reason.SERVICE_TOKEN_REQUIRED
        for delivery_id in ("", "dlv_", "dlv_" + "g" * 32, new_id("evt"), new_id("dlv")):
            assert await reason_of(get(delivering.stub, "*", delivery_id)) is Reason.DELIVERY_NOT_FOUND


async def test_an_id_of_a_reserved_partition_names_no_delivery(ledger: Ledger) -> None:
    """The partitions from 256 to 1022 are reserved, so such an id is not found even if the ledger has a row under it."""
    absent: Any = SimpleNamespace(clock_jumped_ms=0)
    lanes: Any = []
    listings = DeliveryListings(ledger, absent, absent, lanes, Replica(), recorded_through=lambda _: 0, waits_s=lambda: None)
    server = DeliveryServer(listings, absent, absent, absent)
    rows = [unfinished(1)._replace(id=unfinished(1).id[:-2] + partition.to_bytes(2, "big")) for partition in (255, 256, 1022)]
    await ledger.flush(Flush([row._replace(event_id=f"{row.event_id[:-1]}{number}") for number, row in enumerate(rows)]))
    known, *reserved = (delivery_pb2.GetDeliveryRequest(consumer_id="*", id=id_text("dlv", row.id)) for row in rows)
    found = await server.GetDelivery(known, absent)
    assert found.delivery.id == known.id
    for request in reserved:
        with pytest.raises(Failure) as refused:
            await server.GetDelivery(request, absent)
        assert refused.value.reason is Reason.DELIVERY_NOT_FOUND


async def test_a_page_token_that_is_none_is_refused(system: System) -> None:
    tokens = ["x", "!!!!", page_token("events", (5,)), page_token("deliveries", ("zz",)), page_token("deliveries", (5,))]
    async with system.delivering() as delivering:
        for token in tokens:
            assert await reason_of(delivering.deliveries(page_token=token)) is Reason.PAGE_TOKEN_INVALID


async def test_a_state_that_is_none_is_refused(system: System) -> None:
    async with system.delivering() as delivering:
        assert await reason_of(delivering.deliveries(state=99)) is Reason.INVALID_ARGUMENT


async def test_pages_follow_each_other_from_the_newest_to_the_oldest(system: System, hooks: Receiver) -> None:
    async with system.delivering() as delivering:
        await system.subscribe(hooks.url(), "order.*")
        ids = await system.publish(*(cloud_event(str(number)) for number in range(25)))
        await delivering.until(25, state=DELIVERED)
        seen: list[delivery_pb2.Delivery] = []
        token = ""
        pages = 0
        while token or not pages:
            pages += 1
            request = delivery_pb2.ListDeliveriesRequest(consumer_id=system.consumer_id, page_size=10, page_token=token)
            answer = await delivering.stub.ListDeliveries(request, metadata=service_metadata(TOKEN))
            seen += answer.deliveries
            token = answer.next_page_token
        assert pages == 3
        assert len({delivery.id for delivery in seen}) == 25
        assert {delivery.event_id for delivery in seen} == set(ids)
        assert [delivery.id for delivery in seen] == sorted((delivery.id for delivery in seen), reverse=True)
