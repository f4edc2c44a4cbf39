"""Sink credentials through REST."""

import json

import pytest
from hooktide.subscription.v1 import subscription_pb2 as pb
from hooktide.subscription.v1 import subscription_pb2_grpc

from tests.gateway.world import METADATA, SINK, World
from tests.support.pem import KEYS, certificate, private_key

MERGE_PATCH = {"content-type": "application/merge-patch+json"}
CREDENTIALS: dict[str, dict[str, str]] = {
    "PLAIN": {"identifier": "shop", "secret": "canary-secret"},
    "ACCESSTOKEN": {"accesstoken": "canary-secret", "accesstokentype": "Token"},
    "HEADER": {"name": "x-api-key", "value": "canary-secret"},
    "OAUTH2": {"tokenurl": "https://id.example/token", "clientid": "me", "clientsecret": "canary-secret", "scope": "a b"},
    "MTLS": {"certificate": certificate(KEYS["ec"]), "privatekey": private_key(KEYS["ec"])},
}
SECRETS = {"PLAIN": "secret", "ACCESSTOKEN": "accesstoken", "HEADER": "value", "OAUTH2": "clientsecret", "MTLS": "privatekey"}


def credential(name: str, /, **members: str) -> dict[str, str]:
    return {"credentialtype": name, **CREDENTIALS[name], **members}


def shown(name: str) -> dict[str, str]:
    return {member: value for member, value in credential(name).items() if member != SECRETS[name]}


async def watched(world: World, subscription_id: str) -> pb.WatchedSubscription:
    """Return what delivery gets of a subscription."""
    stub = subscription_pb2_grpc.SubscriptionServiceStub(world.registry)
    call = stub.WatchSubscriptions(pb.WatchSubscriptionsRequest(), metadata=METADATA, timeout=20)
    async for item in call:
        if item.put.subscription.id == subscription_id:
            call.cancel()
            return item.put
    raise AssertionError(subscription_id)


@pytest.mark.parametrize("name", CREDENTIALS)
async def test_a_secret_goes_in_and_never_comes_out(world: World, name: str) -> None:
    answer = await world.call("POST", "/v1/subscriptions", {"sink": SINK, "sinkcredential": credential(name)})
    assert (answer.status, answer.json["sinkcredential"]) == (201, shown(name))
    path = answer.headers["location"]
    secret = CREDENTIALS[name][SECRETS[name]]
    for method, to, body in [
        ("GET", path, None),
        ("GET", "/v1/subscriptions?limit=200", None),
        ("PATCH", path, {"types": ["a"]}),
        ("PUT", path, {"sink": SINK, "sinkcredential": shown(name)}),
        ("GET", f"{path}/secret", None),
    ]:
        seen = await world.call(method, to, body)
        assert seen.status == 200
        assert secret not in seen.raw.decode()
        assert json.dumps(secret)[1:-1] not in seen.raw.decode()
    put = (await watched(world, answer.json["id"])).sink_credential
    kind = str(put.WhichOneof("kind"))
    assert secret in str([value for _, value in getattr(put, kind).ListFields()]).replace("\\n", "\n")


async def test_a_put_and_a_patch_of_the_same_type_keep_the_secret(world: World) -> None:
    made = await world.subscription(sinkcredential=credential("OAUTH2"))
    path = f"/v1/subscriptions/{made['id']}"
    body = {"sink": SINK, "sinkcredential": {**shown("OAUTH2"), "scope": "c", "clientsecret": None}}
    put = await world.call("PUT", path, body)
    assert (put.status, put.json["sinkcredential"]["scope"]) == (200, "c")
    patch = {"sinkcredential": {"credentialtype": "OAUTH2", "clientid": "you", "scope": None}}
    patched = await world.call("PATCH", path, patch, headers=MERGE_PATCH)
    assert patched.json["sinkcredential"] == {
        "credentialtype": "OAUTH2",
        "tokenurl": "https://id.example/token",
        "clientid": "you",
        "scope": None,
    }
    oauth2 = (await watched(world, made["id"])).sink_credential.oauth2
    assert (oauth2.client_secret, oauth2.client_id, oauth2.scope) == ("canary-secret", "you", "")
    await world.call("PATCH", path, {"sinkcredential": {"credentialtype": "OAUTH2", "clientsecret": "new"}})
    assert (await watched(world, made["id"])).sink_credential.oauth2.client_secret == "new"


async def test_another_type_and_none_take_the_place_of_a_credential(world: World) -> None:
    made = await world.subscription(sinkcredential=credential("PLAIN"))
    path = f"/v1/subscriptions/{made['id']}"
    for method in ("PATCH", "PUT"):
        body = {"sink": SINK, "sinkcredential": {"credentialtype": "HEADER", "name": "x-api-key"}}
        refused = await world.call(method, path, body)
        assert (refused.status, [error["pointer"] for error in refused.json["errors"]]) == (400, ["/sinkcredential/value"])
    patched = await world.call("PATCH", path, {"sinkcredential": credential("HEADER")})
    assert patched.json["sinkcredential"] == shown("HEADER")
    assert (await world.call("PATCH", path, {"sinkcredential": None})).json["sinkcredential"] is None
    await world.call("PATCH", path, {"sinkcredential": credential("HEADER")})
    assert (await world.call("PUT", path, {"sink": SINK})).json["sinkcredential"] is None


@pytest.mark.parametrize(
    ("members", "pointers"),
    [
        ({"sinkcredential": {"credentialtype": "PLAIN"}}, ["/sinkcredential/identifier", "/sinkcredential/secret"]),
        ({"sinkcredential": credential("PLAIN", identifier="a:b")}, ["/sinkcredential/identifier"]),
        ({"sinkcredential": credential("HEADER", name="Webhook-Id")}, ["/sinkcredential/name"]),
        ({"sinkcredential": credential("HEADER", value="a\r\nb")}, ["/sinkcredential/value"]),
        ({"sinkcredential": credential("OAUTH2", tokenurl="http://169.254.169.254/")}, ["/sinkcredential/tokenurl"]),
        ({"sinkcredential": credential("MTLS", privatekey=private_key(KEYS["rsa"]))}, ["/sinkcredential/privatekey"]),
        ({"sinkcredential": credential("ACCESSTOKEN", accesstokentype="a b")}, ["/sinkcredential/accesstokentype"]),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_wrong_member_is_a_problem_at_its_pointer(
    world: World, method: str, members: dict[str, object], pointers: list[str]
) -> None:
    path = "/v1/subscriptions" if method == "POST" else f"/v1/subscriptions/{(await world.subscription())['id']}"
    if method == "PATCH" and members.get("sinkcredential") == {"credentialtype": "PLAIN"}:
        members = {"sinkcredential": {"credentialtype": "PLAIN", "identifier": None, "secret": None}}
    answer = await world.call(method, path, members if method == "PATCH" else {"sink": SINK, **members})
    assert answer.status == 400
    assert [error["pointer"] for error in answer.json["errors"]] == pointers
    assert "canary" not in answer.raw.decode()
