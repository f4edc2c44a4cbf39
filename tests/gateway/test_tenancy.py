"""Tenancy: another consumer's id gets exactly the answer of a missing id, on every route that takes an id."""

import pytest
from hooktide.delivery.v1 import delivery_pb2

from services.runtime.ids import Prefix, new_id
from tests.gateway.world import SINK, Answer, World
from tests.support.events import cloud_event

VARYING = {"x-request-id", "date", "content-length"}
ROTATE = "/v1/subscriptions/{id}/secret/rotate"
CALLS: list[tuple[Prefix, str, str, object, dict[str, str]]] = [
    ("sub", "GET", "/v1/subscriptions/{id}", None, {}),
    ("sub", "GET", "/v1/subscriptions/{id}", None, {"if-none-match": "*"}),
    ("sub", "HEAD", "/v1/subscriptions/{id}", None, {}),
    ("sub", "PUT", "/v1/subscriptions/{id}", {"sink": SINK}, {}),
    ("sub", "PUT", "/v1/subscriptions/{id}", {"sink": SINK}, {"if-match": '"wrong"'}),
    ("sub", "PUT", "/v1/subscriptions/{id}", {"sink": "nonsense"}, {}),
    ("sub", "PATCH", "/v1/subscriptions/{id}", {"types": ["a"]}, {}),
    ("sub", "PATCH", "/v1/subscriptions/{id}", {"types": ["a"]}, {"if-match": '"wrong"'}),
    ("sub", "PATCH", "/v1/subscriptions/{id}", {}, {}),
    ("sub", "PATCH", "/v1/subscriptions/{id}", {}, {"if-match": '"wrong"'}),
    ("sub", "PATCH", "/v1/subscriptions/{id}", {"types": 1}, {}),
    ("sub", "DELETE", "/v1/subscriptions/{id}", None, {}),
    ("sub", "DELETE", "/v1/subscriptions/{id}", None, {"if-match": '"wrong"'}),
    ("sub", "GET", "/v1/subscriptions/{id}/secret", None, {}),
    ("sub", "POST", ROTATE, {}, {}),
    ("sub", "POST", ROTATE, {"overlap_seconds": -1}, {}),
    ("sub", "POST", ROTATE, {}, {"idempotency-key": "tenancy"}),
    ("sub", "POST", "/v1/subscriptions/{id}/verify", None, {}),
    ("sub", "POST", "/v1/subscriptions/{id}/pause", None, {}),
    ("sub", "POST", "/v1/subscriptions/{id}/resume", None, {}),
    ("sub", "POST", "/v1/subscriptions/{id}/test", None, {}),
    ("sub", "PATCH", "/v1/subscriptions/{id}", {"sinkcredential": {"credentialtype": "PLAIN", "secret": "s"}}, {}),
    ("sub", "PATCH", "/v1/subscriptions/{id}", {"protocolsettings": {"timeout_seconds": 0}}, {}),
    ("evt", "GET", "/v1/events/{id}", None, {}),
    ("dlv", "GET", "/v1/deliveries/{id}", None, {}),
    ("dlv", "GET", "/v1/deliveries?subscription={id}", None, {}),
    ("dlv", "GET", "/v1/deliveries?event={id}", None, {}),
]


async def theirs(world: World, prefix: Prefix) -> str:
    """Make an object of the other consumer and return its id."""
    owner = world.keys.other_id
    if prefix == "sub":
        return str((await world.subscription(key=world.keys.other))["id"])
    if prefix == "evt":
        return world.log.append(cloud_event("1", "t.t"), audience=owner)
    own_id = new_id("dlv")
    # The same id is in all three places, so that each filter would find the delivery.
    world.ledger.deliveries.append(
        delivery_pb2.Delivery(
            id=own_id, subscription_id=own_id, event_id=own_id, consumer_id=owner, state=delivery_pb2.DELIVERY_STATE_PENDING
        )
    )
    return own_id


def seen(answer: Answer, own_id: str) -> tuple[object, ...]:
    """Return what a client sees of an answer, without what differs between any two answers."""
    headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in VARYING}
    body = answer.json if answer.raw else None
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name != "request_id"}
    return answer.status, headers, str(body).replace(own_id, "{id}")


@pytest.mark.parametrize(
    ("prefix", "method", "path", "body", "headers"), CALLS, ids=[f"{call[1]} {call[2]} {call[3]} {call[4]}" for call in CALLS]
)
async def test_another_consumer_s_id_answers_as_a_missing_one(
    world: World, prefix: Prefix, method: str, path: str, body: object, headers: dict[str, str]
) -> None:
    missing_id, their_id = new_id(prefix), await theirs(world, prefix)
    missing = await world.call(method, path.format(id=missing_id), body, headers=headers)
    refused = await world.call(method, path.format(id=their_id), body, headers=headers)
    assert seen(refused, their_id) == seen(missing, missing_id)
    assert "?" in path or refused.status >= 400


async def test_what_was_tried_on_another_consumer_s_subscription_left_it_unchanged(world: World) -> None:
    made = await world.subscription(key=world.keys.other)
    path = f"/v1/subscriptions/{made['id']}"
    for prefix, method, template, body, headers in CALLS:
        if prefix == "sub":
            await world.call(method, template.format(id=made["id"]), body, headers=headers)
    shown = (await world.call("GET", path, key=world.keys.other)).json
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    secrets = (await world.call("GET", f"{path}/secret", key=world.keys.other)).json["secrets"]
    assert [secret["secret"] for secret in secrets] == [made["secret"]]


async def test_lists_hold_nothing_of_another_consumer_s(world: World) -> None:
    made = await world.subscription(key=world.keys.other)
    delivery_id = await theirs(world, "dlv")
    for path, their_id in (("/v1/subscriptions", made["id"]), ("/v1/deliveries", delivery_id)):
        cursor: str | None = ""
        while cursor is not None:
            page = (await world.call("GET", f"{path}?limit=200{cursor}")).json
            assert their_id not in str(page)
            assert {item["consumer_id"] for item in page["items"]} <= {world.keys.consumer_id}
            cursor = None if page["next_cursor"] is None else f"&cursor={page['next_cursor']}"


async def test_an_administrator_reaches_every_consumer_s(world: World) -> None:
    made = await world.subscription(key=world.keys.other)
    path = f"/v1/subscriptions/{made['id']}"
    assert (await world.call("GET", path, key=world.keys.admin)).status == 200
    assert (await world.call("PATCH", path, {"types": ["a"]}, key=world.keys.admin)).status == 200
    assert (await world.call("DELETE", path, key=world.keys.admin)).status == 204
