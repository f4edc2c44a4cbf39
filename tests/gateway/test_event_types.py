from urllib.parse import quote

import pytest
from hooktide.subscription.v1 import catalogue_pb2, catalogue_pb2_grpc

from tests.gateway.world import METADATA, World


async def put(world: World, name: str, **members: object) -> None:
    stub = catalogue_pb2_grpc.CatalogueServiceStub(world.registry)
    event_type = catalogue_pb2.EventType(name=name, **members)  # type: ignore[arg-type]  # passed on as the test wrote them
    await stub.PutEventType(catalogue_pb2.PutEventTypeRequest(event_type=event_type), metadata=METADATA)


async def test_event_types_are_listed_by_name_for_every_role(world: World) -> None:
    await put(world, "0b.second")
    await put(world, "0a.first", description="the first", audience_required=True)
    for key in (world.keys.admin, world.keys.emitter, world.keys.consumer):
        page = (await world.call("GET", "/v1/event-types?limit=1", key=key)).json
        assert [item["name"] for item in page["items"]] == ["0a.first"]
        rest = (await world.call("GET", f"/v1/event-types?cursor={page['next_cursor']}", key=key)).json
        assert "0b.second" in [item["name"] for item in rest["items"]]


async def test_an_event_type_is_read_by_name_with_its_etag(world: World) -> None:
    await put(world, "order.created", description="an order", audience_required=True)
    answer = await world.call("GET", "/v1/event-types/order.created")
    shown = answer.json
    assert shown.pop("created_at").endswith("Z")
    assert shown.pop("updated_at").endswith("Z")
    assert shown == {"name": "order.created", "description": "an order", "audience_required": True}
    same = await world.call("GET", "/v1/event-types/order.created", headers={"if-none-match": answer.headers["etag"]})
    assert (same.status, same.raw) == (304, b"")


async def test_a_type_that_is_not_in_the_catalogue_is_not_found(world: World) -> None:
    answer = await world.call("GET", "/v1/event-types/no.such")
    assert (answer.status, answer.json["reason"]) == (404, "EVENT_TYPE_NOT_FOUND")


@pytest.mark.parametrize("name", ["order:created", "com/foo", "urn:x:y", "a+b", "ü.x", "order created", "a%2Fb", "a?b#c"])
async def test_every_type_that_can_be_emitted_is_found_by_its_name_percent_encoded(world: World, name: str) -> None:
    await put(world, name)
    answer = await world.call("GET", f"/v1/event-types/{quote(name, safe='')}")
    assert (answer.status, answer.json["name"]) == (200, name)
    assert (await world.subscription(types=[name, f"{name}.*"]))["types"] == [name, f"{name}.*"]
