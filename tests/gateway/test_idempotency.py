import pytest

from tests.gateway.world import SINK, World


async def test_the_same_idempotency_key_and_body_give_the_first_answer(world: World) -> None:
    once = {"idempotency-key": "order-7/é".encode().hex()}
    first = await world.call("POST", "/v1/subscriptions", {"sink": SINK, "types": ["a"]}, headers=once)
    again = await world.call("POST", "/v1/subscriptions", {"types": ["a"], "sink": SINK}, headers=once)
    assert (again.status, again.json) == (201, first.json)
    other = await world.call("POST", "/v1/subscriptions", {"sink": SINK, "types": ["b"]}, headers=once)
    assert (other.status, other.json["reason"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert other.json["errors"][0]["header"] == "Idempotency-Key"


async def test_an_idempotency_key_belongs_to_an_api_key_and_a_route(world: World) -> None:
    once = {"idempotency-key": "shared"}
    mine = await world.call("POST", "/v1/subscriptions", {"sink": SINK}, headers=once)
    theirs = await world.call("POST", "/v1/subscriptions", {"sink": SINK}, headers=once, key=world.keys.other)
    assert mine.json["id"] != theirs.json["id"]
    rotated = [
        (await world.call("POST", f"/v1/subscriptions/{made['id']}/secret/rotate", {}, headers=once)).json["secret"]
        for made in (mine.json, mine.json, await world.subscription())
    ]
    assert rotated[0] == rotated[1] != rotated[2]


async def test_two_keys_of_one_consumer_do_not_share_idempotency_keys(world: World) -> None:
    wanted = {"role": "consumer", "consumer_id": world.keys.consumer_id}
    second = (await world.call("POST", "/v1/keys", wanted, key=world.keys.admin)).json["key"]
    for key, types in ((world.keys.consumer, ["a"]), (second, ["b"])):
        answer = await world.call("POST", "/v1/subscriptions", {"sink": SINK, "types": types}, key=key, headers={"idempotency-key": "two"})
        assert (answer.status, answer.json["types"]) == (201, types)


@pytest.mark.parametrize("value", ["", "a b", "ä", "x" * 201])
async def test_an_idempotency_key_is_visible_ascii(world: World, value: str) -> None:
    answer = await world.call("POST", "/v1/subscriptions", {"sink": SINK}, headers={"idempotency-key": value})
    assert answer.status == 400
    assert answer.json["errors"][0]["header"] == "Idempotency-Key"


async def test_creating_a_key_or_consumer_twice_with_one_idempotency_key_makes_one(world: World) -> None:
    for path, body in (("/v1/keys", {"role": "emitter"}), ("/v1/consumers", {"name": "once"})):
        first, again = [await world.call("POST", path, body, key=world.keys.admin, headers={"idempotency-key": "twice"}) for _ in range(2)]
        assert first.status == 201
        assert again.json == first.json
