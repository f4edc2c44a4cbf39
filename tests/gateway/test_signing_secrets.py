import base64

import pytest

from tests.gateway.world import World


async def test_secrets_are_shown_newest_first_and_rotate_with_an_overlap(world: World) -> None:
    made = await world.subscription()
    path = f"/v1/subscriptions/{made['id']}/secret"
    one = await world.call("GET", path)
    assert one.headers["cache-control"] == "no-store"
    assert [(secret["secret"], secret["expires_at"]) for secret in one.json["secrets"]] == [(made["secret"], None)]
    rotated = await world.call("POST", f"{path}/rotate", {"overlap_seconds": 60})
    assert (rotated.status, list(rotated.json)) == (200, ["secret"])
    assert rotated.headers["cache-control"] == "no-store"
    two = (await world.call("GET", path)).json["secrets"]
    assert [secret["secret"] for secret in two] == [rotated.json["secret"], made["secret"]]
    assert two[0]["expires_at"] is None
    assert two[1]["expires_at"].endswith("Z")
    assert list(two[1]) == ["secret", "key_id", "created_at", "expires_at"]
    given = "whsec_" + base64.b64encode(b"g" * 24).decode()
    assert (await world.call("POST", f"{path}/rotate", {"secret": given, "overlap_seconds": 0})).json == {"secret": given}
    assert [secret["secret"] for secret in (await world.call("GET", path)).json["secrets"]] == [given]


async def test_a_rotation_needs_no_body(world: World) -> None:
    made = await world.subscription()
    answer = await world.call("POST", f"/v1/subscriptions/{made['id']}/secret/rotate")
    assert answer.json["secret"].startswith("whsec_")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"overlap_seconds": 8 * 86400}, "/overlap_seconds"),
        ({"overlap_seconds": "1"}, "/overlap_seconds"),
        ({"secret": "x"}, "/secret"),
        ({"overlap": 1}, "/overlap"),
    ],
)
async def test_a_wrong_rotation_is_refused(world: World, body: dict[str, object], pointer: str) -> None:
    made = await world.subscription()
    answer = await world.call("POST", f"/v1/subscriptions/{made['id']}/secret/rotate", body)
    assert (answer.status, [error["pointer"] for error in answer.json["errors"]]) == (400, [pointer])


async def test_the_public_half_of_a_key_is_shown_and_the_private_one_never(world: World) -> None:
    made = await world.subscription(protocolsettings={"signatures": ["v1", "v1a"]})
    path = f"/v1/subscriptions/{made['id']}/secret"
    (first,) = (await world.call("GET", path)).json["keys"]
    assert list(first) == ["public_key", "key_id", "created_at", "expires_at"]
    rotated = await world.call("POST", f"{path}/rotate", {"signature": "v1a"})
    assert (rotated.status, list(rotated.json)) == (200, ["public_key"])
    given = "whsk_" + base64.b64encode(bytes(range(32))).decode()
    brought = await world.call("POST", f"{path}/rotate", {"secret": given})
    both = await world.call("GET", path)
    assert [key["public_key"] for key in both.json["keys"]] == [
        brought.json["public_key"],
        rotated.json["public_key"],
        first["public_key"],
    ]
    assert [secret["secret"] for secret in both.json["secrets"]] == [made["secret"]]
    assert "whsk_" not in both.raw.decode() + brought.raw.decode()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({"signature": "v2"}, "/signature"), ({"signature": "v1a", "secret": "whsec_AAAA"}, "/secret"), ({"secret": "whsk_AAAA"}, "/secret")],
)
async def test_a_wrong_rotation_of_a_key_is_refused(world: World, body: dict[str, object], pointer: str) -> None:
    made = await world.subscription()
    answer = await world.call("POST", f"/v1/subscriptions/{made['id']}/secret/rotate", body)
    assert (answer.status, [error["pointer"] for error in answer.json["errors"]]) == (400, [pointer])
