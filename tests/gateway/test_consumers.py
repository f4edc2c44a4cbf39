import pytest

from tests.gateway.world import World


async def test_a_consumer_is_created_read_and_listed(world: World) -> None:
    created = await world.call("POST", "/v1/consumers", {"name": "Müller & Söhne"}, key=world.keys.admin)
    assert created.status == 201
    assert list(created.json) == ["id", "name", "created_at", "pause"]
    read = await world.call("GET", created.headers["location"], key=world.keys.admin)
    assert read.json == created.json
    listed = await world.call("GET", "/v1/consumers?limit=200", key=world.keys.admin)
    assert created.json in listed.json["items"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": 1}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"name": "x", "plan": "gold"}, "/plan"),
    ],
)
async def test_a_wrong_member_is_a_problem_at_its_pointer(world: World, body: dict[str, object], pointer: str) -> None:
    answer = await world.call("POST", "/v1/consumers", body, key=world.keys.admin)
    assert (answer.status, answer.json["reason"]) == (400, "INVALID_ARGUMENT")
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
