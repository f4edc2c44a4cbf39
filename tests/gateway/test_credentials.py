"""Credentials, settings of requests, limits and keys through REST."""

import base64
import json
from typing import Any

import pytest
from hooktide.subscription.v1 import subscription_pb2 as pb
from hooktide.subscription.v1 import subscription_pb2_grpc

from tests.gateway.world import METADATA, SINK, World
from tests.subscription.pem import KEYS, certificate, private_key

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
        ({"protocolsettings": {"headers": {"x-ok": "1", "Content-Length": "1"}}}, ["/protocolsettings/headers/Content-Length"]),
        ({"protocolsettings": {"headers": {"x/y": "1"}}}, ["/protocolsettings/headers/x~1y"]),
        ({"protocolsettings": {"timeout_seconds": 31}}, ["/protocolsettings/timeout_seconds"]),
        ({"protocolsettings": {"ca_certificates": "none"}}, ["/protocolsettings/ca_certificates"]),
        ({"config": {"rate_per_second": 0, "in_flight_max": 0}}, ["/config/rate_per_second", "/config/in_flight_max"]),
        ({"config": {"retry": {"delays_seconds": [5, 0]}}}, ["/config/retry/delays_seconds/1"]),
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


async def test_settings_and_limits_are_merged_member_by_member(world: World) -> None:
    wanted: dict[str, Any] = {
        "protocolsettings": {
            "headers": {"X-Team": "billing", "x-area": "eu"},
            "timeout_seconds": 2.5,
            "content_mode": "data_only",
            "signatures": ["v1a", "v1"],
            "http_message_signature": True,
        },
        "config": {"rate_per_second": 0.5, "in_flight_max": 7, "retry": {"delays_seconds": [5, 0.25]}},
    }
    made = await world.subscription(key=None, **wanted)
    path = f"/v1/subscriptions/{made['id']}"
    assert made["protocolsettings"] == {
        **wanted["protocolsettings"],
        "headers": {"x-area": "eu", "x-team": "billing"},
        "signatures": ["v1", "v1a"],
        "ca_certificates": None,
    }
    assert made["config"] == {"description": None, **wanted["config"]}
    patch = {
        "protocolsettings": {"headers": {"X-AREA": None, "x-new": "1"}, "timeout_seconds": None},
        "config": {"retry": None, "description": "d"},
    }
    after = (await world.call("PATCH", path, patch, headers=MERGE_PATCH)).json
    assert after["protocolsettings"]["headers"] == {"x-new": "1", "x-team": "billing"}
    assert (after["protocolsettings"]["timeout_seconds"], after["protocolsettings"]["content_mode"]) == (None, "data_only")
    assert after["config"] == {"description": "d", "rate_per_second": 0.5, "in_flight_max": 7, "retry": None}
    again = await world.call("PUT", path, after)
    assert {**again.json, "updated_at": ""} == {**after, "updated_at": ""}


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
