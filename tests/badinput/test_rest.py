"""REST: whatever JSON or bytes a body holds, the answer is a success or a problem that says what to change."""

import json
import time
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.runtime.api_key_cache import FRESH_S
from tests.support.system.processes import System

_NOWHERE = "sub_" + "0" * 32
ROUTES = (
    ("POST", "/v1/subscriptions"),
    ("PUT", f"/v1/subscriptions/{_NOWHERE}"),
    ("PATCH", f"/v1/subscriptions/{_NOWHERE}"),
    ("POST", f"/v1/subscriptions/{_NOWHERE}/secret/rotate"),
    ("POST", f"/v1/subscriptions/{_NOWHERE}/pause"),
    ("POST", "/v1/system/resume"),
    ("POST", "/v1/consumers"),
    ("POST", "/v1/keys"),
)
MEMBERS = st.sampled_from(
    [
        *("sink", "protocol", "types", "source", "config", "secret", "consumer_id", "filters", "sinkcredential", "protocolsettings"),
        *(
            "description",
            "ordering",
            "retry",
            "start",
            "attempts_max",
            "final_statuses",
            "name",
            "role",
            "expires_at",
            "overlap_seconds",
            "id",
            "state",
            "created_at",
            "etag",
            "",
        ),
    ]
)
WORDS = st.sampled_from(
    [
        *(
            "https://a.example/",
            "http://127.0.0.1:8000/x",
            "HTTP",
            "PULL",
            "order.*",
            "*",
            "beginning",
            "key",
            "admin",
            "emitter",
            "consumer",
            "active",
        ),
        *("2030-01-31T12:00:00Z", "whsec_" + "A" * 32, "con_" + "0" * 32, "\x00", "\u2028", "💧", "' OR 1=1", "x" * 3000),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS | st.text(max_size=20)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(MEMBERS | st.text(max_size=5), inner, max_size=4), max_leaves=12
)
BODIES = st.dictionaries(MEMBERS | st.text(max_size=8), VALUES, max_size=6)
FUZZ = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def send(system: System, method: str, path: str, raw: bytes, content_type: str = "application/json") -> tuple[int, dict[str, Any]]:
    """Send raw bytes as the administrator; return status and answer."""
    headers = {"authorization": f"Bearer {system.first.admin}", "content-type": content_type}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.request(method, f"http://{system.services['gateway'].listen}{path}", data=raw) as answer,
    ):
        return answer.status, json.loads(await answer.read())


def is_a_clear_problem(status: int, answer: dict[str, Any]) -> bool:
    """Return whether an answer is a problem of the client's, with a reason, a sentence and the places at fault."""
    return (
        400 <= status < 500
        and answer["status"] == status
        and answer["reason"].isupper()
        and bool(answer["detail"])
        and all(error["detail"] for error in answer["errors"])
        and len(json.dumps(answer)) < 20_000
    )


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{method} {path.replace(_NOWHERE, '…')}" for method, path in ROUTES])
@given(body=BODIES)
@FUZZ
async def test_any_object_is_taken_or_its_mistakes_are_named(system: System, method: str, path: str, body: dict[str, object]) -> None:
    status, answer = await send(system, method, path, json.dumps(body).encode())
    assert status in {200, 201} or is_a_clear_problem(status, answer), answer


@given(raw=st.binary(max_size=300), method_and_path=st.sampled_from(ROUTES))
@FUZZ
async def test_any_bytes_are_an_object_or_a_malformed_body(system: System, raw: bytes, method_and_path: tuple[str, str]) -> None:
    status, answer = await send(system, *method_and_path, raw)
    assert status in {200, 201} or is_a_clear_problem(status, answer), answer


@given(
    parameters=st.dictionaries(
        st.sampled_from(["limit", "cursor", "state", "subscription", "event", "type", "source", "after", "before"]) | st.text(max_size=5),
        st.text(max_size=30) | WORDS | st.integers().map(str),
        max_size=4,
    ),
    path=st.sampled_from(["/v1/subscriptions", "/v1/events", "/v1/deliveries", "/v1/consumers", "/v1/keys", "/v1/event-types"]),
)
@FUZZ
async def test_any_query_is_answered_or_its_mistakes_are_named(system: System, parameters: dict[str, str], path: str) -> None:
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {system.first.admin}"}) as http,
        http.get(f"http://{system.services['gateway'].listen}{path}", params=parameters) as answer,
    ):
        assert answer.status == 200 or is_a_clear_problem(answer.status, await answer.json(content_type=None)), await answer.text()


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        ({}, "/sink", "is required"),
        ({"sink": "orders"}, "/sink", "must begin with https://"),
        ({"sink": 7}, "/sink", "must be a string"),
        ({"sink": "https://a.example/", "types": "order.*"}, "/types", "must be a list of strings"),
        ({"sink": "https://a.example/", "types": ["a", 1]}, "/types/1", "must be a string"),
        ({"sink": "https://a.example/", "type": ["a"]}, "/type", "is not a member of this object; its members are: "),
        ({"sink": "https://a.example/", "filters": [{}]}, "/filters", "is not supported by this version; leave it out"),
        ({"sink": "https://a.example/", "config": []}, "/config", "must be an object"),
        ({"sink": "https://a.example/", "config": {"ordering": "source"}}, "/config/ordering", 'must be "none" or "key"'),
        ({"sink": "https://a.example/", "config": {"start": "yesterday"}}, "/config/start", '"beginning" or a time as in RFC 3339'),
        ({"sink": "https://a.example/", "config": {"start": "2999-01-01T00:00:00Z"}}, "/config/start", "a time from 1970 until now"),
        ({"sink": "https://a.example/", "config": {"retry": {"attempts_max": 99}}}, "/config/retry/attempts_max", "must be from 1 to 31"),
        ({"sink": "https://a.example/", "config": {"retry": {"final_statuses": [200]}}}, "/config/retry/final_statuses/0", "300 to 599"),
        ({"sink": "https://a.example/", "secret": "short"}, "/secret", "whsec_"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_wrong_member_is_told_with_what_to_change(system: System, body: dict[str, object], pointer: str, says: str) -> None:
    status, answer = await send(system, "POST", "/v1/subscriptions", json.dumps({"consumer_id": system.first.consumer_id, **body}).encode())
    assert status == 400
    assert any(error["pointer"] == pointer and says in error["detail"] for error in answer["errors"]), answer


async def test_a_key_that_is_revoked_or_was_never_one_is_nobodys(system: System) -> None:
    """The answer does not tell which; a revoked key stops within two seconds."""
    admin = system.first.admin
    status, made = await system.call("POST", "/v1/keys", admin, {"role": "admin"})
    assert status == 201
    revoked = str(made["key"])
    assert (await system.call("GET", "/v1/whoami", revoked))[0] == 200
    status, _ = await system.call("DELETE", f"/v1/keys/{made['id']}", admin)
    assert status == 204
    gone = began = time.monotonic()
    while (await system.call("GET", "/v1/whoami", revoked))[0] == 200:
        assert began - gone < FRESH_S
        began = time.monotonic()
    for key in (revoked, "hkt_" + "0" * 49, "hkt_", "x", admin[:-1] + ("0" if admin[-1] != "0" else "1"), "ключ"):
        status, problem = await system.call("GET", "/v1/keys", key)
        assert (status, problem["reason"]) == (401, "KEY_INVALID"), key
