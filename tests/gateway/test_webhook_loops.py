"""Loops: Hooktide's own webhooks that arrive at its API are refused, so that no event goes round in a circle."""

import pytest

from tests.gateway.world import SINK, World

WEBHOOK = {"Hooktide-Subscription-Id": "sub_1", "webhook-id": "evt_1"}


@pytest.mark.parametrize("path", ["/v1/subscriptions", "/v1/keys", "/v1/events", "/v1/verifications/x", "/healthz", "/nope"])
@pytest.mark.parametrize("own_key", [True, False], ids=["with a key", "without"])
async def test_a_webhook_is_refused_wherever_it_arrives(world: World, path: str, own_key: bool) -> None:  # noqa: FBT001 - a parameter of the test
    answer = await world.call("POST", path, {"sink": SINK}, key=None if own_key else "", headers=WEBHOOK)
    assert (answer.status, answer.json["reason"]) == (508, "LOOP_DETECTED")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "sink" in answer.json["detail"]


async def test_a_webhook_that_would_make_a_subscription_makes_none(world: World) -> None:
    before = (await world.call("GET", "/v1/subscriptions?limit=200")).json["items"]
    assert (await world.call("POST", "/v1/subscriptions", {"sink": SINK}, headers=WEBHOOK)).status == 508
    assert (await world.call("GET", "/v1/subscriptions?limit=200")).json["items"] == before
    assert (await world.call("POST", "/v1/subscriptions", {"sink": SINK})).status == 201
