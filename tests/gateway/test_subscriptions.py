import pytest

from tests.gateway.world import SINK, World


async def test_a_created_subscription_is_shown_with_its_secret_and_location(world: World) -> None:
    """201 with Location, ETag, the read-only members and the secret, which nobody may store."""
    answer = await world.call(
        "POST", "/v1/subscriptions", {"sink": SINK, "types": ["order.created", "invoice.*"], "source": "/shop", "config": {"description": "d"}}
    )
    assert answer.status == 201
    made = answer.json
    assert answer.headers["location"] == f"/v1/subscriptions/{made['id']}"
    assert answer.headers["cache-control"] == "no-store"
    assert made["secret"].startswith("whsec_")
    assert made.pop("created_at").endswith("Z")
    assert made.pop("updated_at").endswith("Z")
    del made["id"], made["secret"]
    assert made == {
        "consumer_id": world.keys.consumer_id,
        "sink": SINK,
        "protocol": "HTTP",
        "types": ["order.created", "invoice.*"],
        "source": "/shop",
        "config": {"description": "d"},
        "state": "active",
        "state_reason": None,
    }


async def test_it_all(world: World) -> None:
    for path in ("/v1/whoami","/v1/subscriptions","/v1/events","/v1/deliveries","/v1/event-types","/v1/keys","/v1/consumers","/nope","/readyz","/healthz"):
        a = await world.call("GET", path, key=world.keys.admin)
        print(path, a.status, a.raw[:300], dict(a.headers))
