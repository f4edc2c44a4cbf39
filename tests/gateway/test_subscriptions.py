import base64

import pytest
from hooktide.delivery.v1 import delivery_pb2
from standardwebhooks import Webhook

from tests.gateway.world import SINK, World

MERGE_PATCH = {"content-type": "application/merge-patch+json"}
NO_LIMITS = {"rate_per_second": None, "in_flight_max": None, "retry": None, "ordering": "none", "start": "now"}
NO_CONFIG = {"description": None, **NO_LIMITS}
SETTINGS: dict[str, object] = {
    "headers": {},
    "timeout_seconds": None,
    "content_mode": "structured",
    "signatures": ["v1"],
    "http_message_signature": False,
    "ca_certificates": None,
}


async def test_a_created_subscription_is_shown_with_its_secret_and_location(world: World) -> None:
    """The answer is 201 with Location, ETag, the read-only members and the secret, and must not be stored by any cache."""
    wanted = {"sink": SINK, "types": ["order.created", "invoice.*"], "source": "/shop", "config": {"description": "d"}}
    answer = await world.call("POST", "/v1/subscriptions", wanted)
    assert answer.status == 201
    made = answer.json
    assert answer.headers["location"] == f"/v1/subscriptions/{made['id']}"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert Webhook(made["secret"])
    assert made.pop("created_at").endswith("Z")
    assert made.pop("updated_at").endswith("Z")
    del made["id"], made["secret"]
    assert made == {
        "consumer_id": world.keys.consumer_id,
        "protocol": "HTTP",
        **wanted,
        "config": {"description": "d", **NO_LIMITS},
        "sinkcredential": None,
        "protocolsettings": SETTINGS,
        "state": "active",
        "state_reason": None,
        "verification": None,
    }


async def test_what_was_created_is_read_by_its_location_without_the_secret(world: World) -> None:
    created = await world.call("POST", "/v1/subscriptions", {"sink": SINK})
    read = await world.call("GET", created.headers["location"])
    assert read.status == 200
    assert read.headers["etag"] == created.headers["etag"]
    assert {**read.json, "secret": created.json["secret"]} == created.json


async def test_a_brought_secret_is_kept(world: World) -> None:
    secret = "whsec_" + base64.b64encode(b"s" * 32).decode()
    made = await world.subscription(secret=secret)
    assert made["secret"] == secret


async def test_an_administrator_creates_for_a_consumer(world: World) -> None:
    made = await world.subscription(key=world.keys.admin, consumer_id=world.keys.other_id)
    assert made["consumer_id"] == world.keys.other_id
    assert (await world.call("GET", f"/v1/subscriptions/{made['id']}", key=world.keys.other)).status == 200
    refused = await world.call("POST", "/v1/subscriptions", {"sink": SINK}, key=world.keys.admin)
    assert refused.status == 400
    assert refused.json["errors"][0]["pointer"] == "/consumer_id"


@pytest.mark.parametrize(
    ("members", "pointer", "reason"),
    [
        ({}, "/sink", "INVALID_ARGUMENT"),
        ({"sink": None}, "/sink", "INVALID_ARGUMENT"),
        ({"sink": "http://10.0.0.1/"}, "/sink", "SINK_FORBIDDEN"),
        ({"sink": SINK, "types": ["a", "no.*.type"]}, "/types/1", "INVALID_ARGUMENT"),
        ({"sink": SINK, "config": {"description": "x" * 1001}}, "/config/description", "INVALID_ARGUMENT"),
        ({"sink": SINK, "secret": "hush"}, "/secret", "INVALID_ARGUMENT"),
        ({"sink": SINK, "filters": []}, "/filters", "INVALID_ARGUMENT"),
    ],
)
async def test_a_wrong_member_is_a_problem_at_its_pointer(world: World, members: dict[str, object], pointer: str, reason: str) -> None:
    answer = await world.call("POST", "/v1/subscriptions", members)
    assert answer.status == 400
    problem = answer.json
    assert problem["reason"] == reason
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert pointer in problem["detail"]
    assert "subscription." not in problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]


async def test_lists_go_on_by_cursor_until_it_is_null(world: World) -> None:
    made = [(await world.subscription(key=world.keys.other))["id"] for _ in range(5)]
    seen, cursor = list[str](), ""
    while True:
        page = (await world.call("GET", f"/v1/subscriptions?limit=2{cursor}", key=world.keys.other)).json
        assert len(page["items"]) <= 2
        assert all("secret" not in item for item in page["items"])
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert [one for one in seen if one in made] == made
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("query", "parameter", "reason"),
    [
        ("limit=ten", "limit", "INVALID_ARGUMENT"),
        ("limit=0", "limit", "INVALID_ARGUMENT"),
        ("cursor=made-up", "cursor", "PAGE_TOKEN_INVALID"),
        ("page=2", "page", "INVALID_ARGUMENT"),
        ("limit=1&limit=2", "limit", "INVALID_ARGUMENT"),
    ],
)
async def test_a_wrong_parameter_is_named(world: World, query: str, parameter: str, reason: str) -> None:
    answer = await world.call("GET", f"/v1/subscriptions?{query}")
    assert (answer.status, answer.json["reason"]) == (400, reason)
    assert [error["parameter"] for error in answer.json["errors"]] == [parameter]


@pytest.mark.parametrize("query", ["limit=%FF", "&".join(f"p{number}=1" for number in range(40))])
async def test_a_query_beyond_all_use_is_refused(world: World, query: str) -> None:
    answer = await world.call("GET", f"/v1/subscriptions?{query}")
    assert answer.status == 400


async def test_a_cursor_of_another_consumer_is_no_cursor(world: World) -> None:
    for _ in range(2):
        await world.subscription(key=world.keys.other)
    page = (await world.call("GET", "/v1/subscriptions?limit=1", key=world.keys.other)).json
    answer = await world.call("GET", f"/v1/subscriptions?limit=1&cursor={page['next_cursor']}")
    assert answer.json["reason"] == "PAGE_TOKEN_INVALID"


async def test_a_patch_changes_only_the_members_it_has(world: World) -> None:
    made = await world.subscription(types=["a", "b"], source="/shop", config={"description": "before"})
    path = f"/v1/subscriptions/{made['id']}"
    answer = await world.call("PATCH", path, {"types": ["c"], "config": {"description": "after"}}, headers=MERGE_PATCH)
    assert answer.status == 200
    assert (answer.json["types"], answer.json["source"], answer.json["config"]) == (["c"], "/shop", {"description": "after", **NO_LIMITS})
    reset = await world.call("PATCH", path, {"types": None, "source": None, "config": None}, headers=MERGE_PATCH)
    assert (reset.json["types"], reset.json["source"], reset.json["config"]) == ([], None, NO_CONFIG)
    assert reset.json["sink"] == SINK
    assert reset.headers["etag"] != answer.headers["etag"]
    refused = await world.call("PATCH", path, {"sink": None})
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (400, "/sink")


@pytest.mark.parametrize("patch", [{}, {"state": "paused", "id": "sub_x"}, {"config": {}}, {"protocol": "HTTP"}])
async def test_a_patch_that_changes_nothing_answers_with_what_stands_there(world: World, patch: dict[str, object]) -> None:
    created = await world.call("POST", "/v1/subscriptions", {"sink": SINK})
    path = created.headers["location"]
    answer = await world.call("PATCH", path, patch)
    assert (answer.status, answer.headers["etag"]) == (200, created.headers["etag"])
    assert (await world.call("PATCH", path, patch, headers={"if-match": created.headers["etag"]})).status == 200
    assert (await world.call("PATCH", path, patch, headers={"if-match": '"old"'})).json["reason"] == "ETAG_MISMATCH"


async def test_a_put_replaces_all_that_can_be_written(world: World) -> None:
    made = await world.subscription(types=["a"], source="/shop", config={"description": "d"})
    path = f"/v1/subscriptions/{made['id']}"
    shown = (await world.call("GET", path)).json
    same = await world.call("PUT", path, shown)
    assert same.status == 200
    bare = await world.call("PUT", path, {"sink": f"{SINK}/2"})
    assert (bare.json["sink"], bare.json["types"], bare.json["source"], bare.json["config"]) == (
        f"{SINK}/2",
        [],
        None,
        NO_CONFIG,
    )
    assert (await world.call("PUT", path, {"types": []})).json["errors"][0]["pointer"] == "/sink"


async def test_a_deleted_subscription_is_gone(world: World) -> None:
    made = await world.subscription()
    path = f"/v1/subscriptions/{made['id']}"
    gone = await world.call("DELETE", path)
    assert (gone.status, gone.raw) == (204, b"")
    assert "content-type" not in gone.headers
    for method in ("DELETE", "GET"):
        answer = await world.call(method, path)
        assert (answer.status, answer.json["reason"]) == (404, "SUBSCRIPTION_NOT_FOUND")


async def test_what_came_of_a_test_event_is_the_answer(world: World) -> None:
    made = await world.subscription()
    world.ledger.attempt = delivery_pb2.Attempt(number=1, outcome=delivery_pb2.ATTEMPT_OUTCOME_STATUS, status=500, error="it answered 500")
    answer = await world.call("POST", f"/v1/subscriptions/{made['id']}/test")
    assert (answer.status, answer.json["event_id"], answer.json["attempt"]["outcome"]) == (200, "evt_" + "7" * 32, "status")
    assert (answer.json["attempt"]["status"], answer.json["attempt"]["error"]) == (500, "it answered 500")
    surplus = await world.call("POST", f"/v1/subscriptions/{made['id']}/test", {"type": "order.created"})
    assert (surplus.status, surplus.json["errors"][0]["pointer"]) == (400, "/type")
