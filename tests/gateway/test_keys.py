from datetime import UTC, datetime, timedelta

import pytest

from tests.gateway.world import World


async def test_a_key_is_shown_in_clear_once(world: World) -> None:
    ends = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")
    wanted = {"role": "consumer", "consumer_id": world.keys.other_id, "name": "ci", "expires_at": ends}
    created = await world.call("POST", "/v1/keys", wanted, key=world.keys.admin)
    assert created.status == 201
    assert created.headers["cache-control"] == "no-store"
    key = created.json
    assert key["key"].startswith("hkt_")
    assert (key["role"], key["consumer_id"], key["name"]) == ("consumer", world.keys.other_id, "ci")
    assert datetime.fromisoformat(key["expires_at"]) == datetime.fromisoformat(ends)
    read = await world.call("GET", created.headers["location"], key=world.keys.admin)
    assert read.json == {name: value for name, value in key.items() if name != "key"}
    assert key["key"] not in read.raw.decode()
    assert read.json in (await world.call("GET", "/v1/keys?limit=200", key=world.keys.admin)).json["items"]
    assert (await world.call("GET", "/v1/whoami", key=key["key"])).json == read.json


@pytest.mark.parametrize("role", ["admin", "emitter"])
async def test_a_new_key_works_at_once_and_a_revoked_one_no_longer(world: World, role: str) -> None:
    created = await world.call("POST", "/v1/keys", {"role": role}, key=world.keys.admin)
    # The key is revoked before its first use: no cache holds it, so there is nothing to wait for.
    assert (await world.call("DELETE", created.headers["location"], key=world.keys.admin)).status == 204
    refused = await world.call("GET", "/v1/whoami", key=created.json["key"])
    assert (refused.status, refused.json["reason"]) == (401, "KEY_INVALID")
    for method in ("DELETE", "GET"):
        gone = await world.call(method, created.headers["location"], key=world.keys.admin)
        assert (gone.status, gone.json["reason"]) == (404, "KEY_NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/role"),
        ({"role": None}, "/role"),
        ({"role": "root"}, "/role"),
        ({"role": 1}, "/role"),
        ({"role": "consumer"}, "/consumer_id"),
        ({"role": "admin", "consumer_id": "con_1"}, "/consumer_id"),
        ({"role": "admin", "name": []}, "/name"),
        ({"role": "admin", "expires_at": "tomorrow"}, "/expires_at"),
        ({"role": "admin", "expires_at": 1_900_000_000}, "/expires_at"),
        ({"role": "admin", "expires_at": ""}, "/expires_at"),
        ({"role": "admin", "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
        ({"role": "admin", "scopes": []}, "/scopes"),
    ],
)
async def test_a_wrong_member_is_a_problem_at_its_pointer(world: World, body: dict[str, object], pointer: str) -> None:
    answer = await world.call("POST", "/v1/keys", body, key=world.keys.admin)
    assert (answer.status, answer.json["reason"]) == (400, "INVALID_ARGUMENT")
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]


async def test_a_key_for_a_consumer_that_does_not_exist_is_refused(world: World) -> None:
    answer = await world.call("POST", "/v1/keys", {"role": "consumer", "consumer_id": "con_" + "0" * 32}, key=world.keys.admin)
    assert (answer.status, answer.json["reason"]) == (404, "CONSUMER_NOT_FOUND")


async def test_whoami_says_whose_the_key_is_and_never_the_key(world: World) -> None:
    for key, role, consumer_id in (
        (world.keys.admin, "admin", None),
        (world.keys.emitter, "emitter", None),
        (world.keys.consumer, "consumer", world.keys.consumer_id),
    ):
        answer = await world.call("GET", "/v1/whoami", key=key)
        assert (answer.json["role"], answer.json["consumer_id"]) == (role, consumer_id)
        assert key not in answer.raw.decode()


async def test_without_a_key_one_is_required_and_a_wrong_one_is_said_to_be_invalid(world: World) -> None:
    missing = await world.call("GET", "/v1/whoami", key="")
    assert (missing.status, missing.json["reason"], missing.headers["www-authenticate"]) == (401, "KEY_REQUIRED", "Bearer")
    basic = await world.call("GET", "/v1/whoami", key="", headers={"authorization": "Basic aGt0X2E6"})
    assert basic.json["reason"] == "KEY_REQUIRED"
    for key in ("hkt_" + "a" * 49, "nonsense", world.keys.consumer[:-1]):
        invalid = await world.call("GET", "/v1/whoami", key=key)
        assert (invalid.status, invalid.json["reason"]) == (401, "KEY_INVALID")
        assert invalid.headers["www-authenticate"] == 'Bearer error="invalid_token"'
