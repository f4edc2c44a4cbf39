"""Verifications: the ownership handshake through REST when the operator requires consent."""

from collections.abc import AsyncIterator

import pytest
from hooktide.subscription.v1 import subscription_pb2 as pb

from tests.gateway.world import SINK, World, running_world


@pytest.fixture(scope="module")
async def strict(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A running world whose registry requires consent."""
    async with running_world(tmp_path_factory.mktemp("strict"), handshake="required") as running:
        yield running


async def verified(world: World, consent: pb.Verification, path: str) -> dict[str, object]:
    world.ledger.consent = consent
    answer = await world.call("POST", f"{path}/verify")
    assert answer.status == 200
    assert answer.headers["etag"]
    return dict(answer.json)


async def test_a_sink_that_consents_makes_its_subscription_active(strict: World) -> None:
    made = await strict.subscription()
    path = f"/v1/subscriptions/{made['id']}"
    assert (made["state"], made["verification"]) == ("unverified", None)
    refused = await verified(
        strict, pb.Verification(state=pb.VERIFICATION_STATE_REFUSED, detail="the sink's WebHook-Allowed-Origin is another one"), path
    )
    assert refused["state"] == "unverified"
    assert str(refused["state_reason"]).endswith("the sink's WebHook-Allowed-Origin is another one")
    granted = await verified(strict, pb.Verification(state=pb.VERIFICATION_STATE_GRANTED, rate_per_minute=120), path)
    assert (granted["state"], granted["state_reason"]) == ("active", None)
    verification = dict(granted["verification"])  # type: ignore[call-overload]  # an object of JSON
    assert verification.pop("at").endswith("Z")
    assert verification == {"state": "granted", "rate_per_minute": 120, "detail": None}
    shown = (await strict.call("GET", path)).json
    assert shown == granted
    again = await strict.call("PUT", path, shown)
    assert (again.status, again.json["state"]) == (200, "active")
    moved = (await strict.call("PATCH", path, {"sink": f"{SINK}/2"})).json
    assert (moved["state"], moved["verification"]) == ("unverified", None)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("sent", "rate"), [(None, None), ("*", None), ("120", 120)])
async def test_a_sink_consents_later_by_the_callback_url(strict: World, method: str, sent: str | None, rate: int | None) -> None:
    """The callback needs no key, and may come several times."""
    made = await strict.subscription()
    path = f"/v1/subscriptions/{made['id']}"
    pending = await verified(strict, pb.Verification(state=pb.VERIFICATION_STATE_PENDING, detail="it may consent later"), path)
    assert pending["state"] == "unverified"
    callback = f"/v1/verifications/{strict.ledger.callback_token}"
    headers = {} if sent is None else {"WebHook-Allowed-Rate": sent}
    for _ in range(2):
        answer = await strict.call(method, callback, key="", headers=headers)
        assert (answer.status, answer.json) == (200, {"state": "granted", "rate_per_minute": rate})
        assert answer.headers["cache-control"] == "no-store"
    shown = (await strict.call("GET", path)).json
    assert (shown["state"], shown["verification"]["rate_per_minute"]) == ("active", rate)


async def test_looking_at_the_callback_url_is_no_consent(strict: World) -> None:
    made = await strict.subscription()
    path = f"/v1/subscriptions/{made['id']}"
    await verified(strict, pb.Verification(state=pb.VERIFICATION_STATE_PENDING), path)
    callback = f"/v1/verifications/{strict.ledger.callback_token}"
    for method in ("HEAD", "OPTIONS", "PUT", "DELETE"):
        answer = await strict.call(method, callback, key="")
        assert answer.status == 405
    assert (await strict.call("GET", path)).json["state"] == "unverified"


@pytest.mark.parametrize("token", ["x", "A" * 43, "A" * 44, "..%2f", "%00", "A" * 42 + "%2f"])
async def test_a_token_that_was_never_given_out_is_not_found(strict: World, token: str) -> None:
    answer = await strict.call("GET", f"/v1/verifications/{token}", key="")
    assert (answer.status, answer.json["reason"]) == (404, "VERIFICATION_NOT_FOUND")


@pytest.mark.parametrize("rate", ["0", "-1", "1.5", "many", "", "1" * 10, "\u0663"])
async def test_a_rate_that_is_none_is_refused(strict: World, rate: str) -> None:
    answer = await strict.call("POST", "/v1/verifications/" + "A" * 43, key="", headers={"WebHook-Allowed-Rate": rate})
    assert answer.status == 400
    assert [error["header"] for error in answer.json["errors"]] == ["WebHook-Allowed-Rate"]


async def test_a_sink_is_asked_only_so_often(strict: World) -> None:
    made = await strict.subscription()
    path = f"/v1/subscriptions/{made['id']}/verify"
    strict.ledger.consent = pb.Verification(state=pb.VERIFICATION_STATE_FAILED, detail="no answer")
    statuses = [(await strict.call("POST", path)).status for _ in range(11)]
    assert statuses == [200] * 10 + [429]
    refused = await strict.call("POST", path)
    assert refused.headers["retry-after"] == "600"


async def test_a_verification_takes_no_members(strict: World) -> None:
    made = await strict.subscription()
    answer = await strict.call("POST", f"/v1/subscriptions/{made['id']}/verify", {"force": True})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (400, "/force")


async def test_where_the_operator_has_switched_handshakes_off_there_is_nothing_to_verify(world: World) -> None:
    made = await world.subscription()
    answer = await world.call("POST", f"/v1/subscriptions/{made['id']}/verify")
    assert (answer.status, answer.json["reason"]) == (409, "STATE_CONFLICT")
