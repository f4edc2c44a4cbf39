"""Pauses of subscriptions, consumers and the system through REST."""

import pytest
from hooktide.subscription.v1 import subscription_pb2, subscription_pb2_grpc

from tests.gateway.world import METADATA, World

MERGE_PATCH = {"content-type": "application/merge-patch+json"}


async def test_a_subscription_is_paused_and_resumed(world: World) -> None:
    """Each answer has the subscription and its ETag; both calls may be repeated, with or without an empty object."""
    made = await world.subscription()
    path = f"/v1/subscriptions/{made['id']}"
    paused = await world.call("POST", f"{path}/pause")
    assert (paused.status, paused.json["state"]) == (200, "paused")
    assert paused.json["state_reason"].startswith("paused by its owner since 2")
    again = await world.call("POST", f"{path}/pause", {}, key=world.keys.admin)
    assert (again.json, again.headers["etag"]) == (paused.json, paused.headers["etag"])
    read = await world.call("GET", path)
    assert (read.json, read.headers["etag"]) == (paused.json, paused.headers["etag"])
    changed = await world.call("PATCH", path, {"source": "/s"}, headers={**MERGE_PATCH, "if-match": paused.headers["etag"]})
    assert (changed.status, changed.json["state"]) == (200, "paused")
    resumed = await world.call("POST", f"{path}/resume")
    assert (resumed.status, resumed.json["state"], resumed.json["state_reason"]) == (200, "active", None)
    assert (await world.call("POST", f"{path}/resume", {})).json == resumed.json


async def test_an_administrators_pause_says_so(world: World) -> None:
    made = await world.subscription()
    paused = await world.call("POST", f"/v1/subscriptions/{made['id']}/pause", key=world.keys.admin)
    assert paused.json["state_reason"].startswith("paused by the operator since 2")
    assert (await world.call("POST", f"/v1/subscriptions/{made['id']}/resume")).json["state"] == "active"


async def test_a_disabled_subscription_cannot_be_paused_and_is_enabled_by_a_resume(world: World) -> None:
    made = await world.subscription()
    path = f"/v1/subscriptions/{made['id']}"
    stub = subscription_pb2_grpc.SubscriptionServiceStub(world.registry)
    get = subscription_pb2.GetSubscriptionRequest(consumer_id="*", id=made["id"])
    current = (await stub.GetSubscription(get, metadata=METADATA)).subscription
    disable = subscription_pb2.DisableSubscriptionRequest(id=made["id"], sink_revision=current.sink_revision, reason="it has failed.")
    await stub.DisableSubscription(disable, metadata=METADATA)
    shown = (await world.call("GET", path)).json
    assert (shown["state"], shown["state_reason"]) == ("disabled", "it has failed.")
    refused = await world.call("POST", f"{path}/pause")
    assert (refused.status, refused.json["reason"]) == (409, "STATE_CONFLICT")
    assert "first enable it" in refused.json["detail"]
    assert (await world.call("POST", f"{path}/resume")).json["state"] == "active"


async def test_a_consumer_is_paused_and_resumed(world: World) -> None:
    """Its subscriptions keep their states and say that it is paused, with another ETag."""
    made = await world.subscription(key=world.keys.other)
    path, subscription = f"/v1/consumers/{world.keys.other_id}", f"/v1/subscriptions/{made['id']}"
    before = await world.call("GET", subscription, key=world.keys.other)
    paused = await world.call("POST", f"{path}/pause", key=world.keys.admin)
    try:
        pause = paused.json["pause"]
        assert (paused.status, list(pause)) == (200, ["at", "by", "events_kept_until"])
        admin = await world.call("GET", "/v1/whoami", key=world.keys.admin)
        assert pause["by"] == admin.json["id"]
        assert pause["at"] < pause["events_kept_until"]
        assert (await world.call("POST", f"{path}/pause", {}, key=world.keys.admin)).json == paused.json
        assert (await world.call("GET", path, key=world.keys.admin)).json == paused.json
        headers = {"if-none-match": before.headers["etag"]}
        shown = await world.call("GET", subscription, key=world.keys.other, headers=headers)
        assert (shown.status, shown.json["state"]) == (200, "active")
        assert shown.json["state_reason"].startswith("its consumer is paused by the operator since 2")
    finally:
        resumed = await world.call("POST", f"{path}/resume", key=world.keys.admin)
    assert (resumed.status, resumed.json["pause"]) == (200, None)
    after = await world.call("GET", subscription, key=world.keys.other)
    assert (after.json, after.headers["etag"]) == (before.json, before.headers["etag"])


async def test_the_system_is_paused_and_resumed(world: World) -> None:
    assert (await world.call("GET", "/v1/system", key=world.keys.admin)).json == {"pause": None}
    paused = await world.call("POST", "/v1/system/pause", key=world.keys.admin)
    try:
        assert (paused.status, list(paused.json["pause"])) == (200, ["at", "by", "events_kept_until"])
        for method, path in (("GET", "/v1/system"), ("POST", "/v1/system/pause")):
            assert (await world.call(method, path, key=world.keys.admin)).json == paused.json
    finally:
        resumed = await world.call("POST", "/v1/system/resume", {}, key=world.keys.admin)
    assert (resumed.status, resumed.json) == (200, {"pause": None})


@pytest.mark.parametrize("action", ["pause", "resume"])
@pytest.mark.parametrize("what", ["subscriptions/{subscription}", "consumers/{consumer}", "system"])
async def test_these_calls_take_no_members(world: World, what: str, action: str) -> None:
    subscription = (await world.subscription())["id"]
    path = f"/v1/{what.format(subscription=subscription, consumer=world.keys.consumer_id)}/{action}"
    answer = await world.call("POST", path, {"until": "tomorrow"}, key=world.keys.admin)
    assert (answer.status, [error["pointer"] for error in answer.json["errors"]]) == (400, ["/until"])


async def test_a_consumer_that_is_none_cannot_be_paused(world: World) -> None:
    for action in ("pause", "resume"):
        answer = await world.call("POST", f"/v1/consumers/con_{'0' * 32}/{action}", key=world.keys.admin)
        assert (answer.status, answer.json["reason"]) == (404, "CONSUMER_NOT_FOUND")
