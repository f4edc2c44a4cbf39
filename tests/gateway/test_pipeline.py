"""HTTP: what holds for every request: ids, headers, methods, logs, time limits."""

import asyncio
import json
from pathlib import Path

import pytest
import structlog

from gateway.listener import HttpLimits
from tests.gateway.raw_http import Dialled, head
from tests.gateway.world import SINK, World, running_world
from tests.support.events import cloud_event
from tests.support.waiting import until

HURRIED = HttpLimits(body_s=0.3, answer_s=0.5, lingering_s=0.1)


async def test_an_unknown_route_is_a_problem(world: World) -> None:
    for path in ("/", "/v1", "/v2/subscriptions", "/v1/subscriptions/", "/v1/subscriptions/a/b"):
        answer = await world.call("GET", path)
        assert (answer.status, answer.json["reason"]) == (404, "ROUTE_NOT_FOUND")
        assert answer.json["type"] == "/docs/errors/route-not-found"
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
async def test_another_method_is_a_problem_that_names_those_allowed(world: World, method: str) -> None:
    answer = await world.call(method, "/v1/subscriptions")
    assert (answer.status, answer.json["reason"]) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET, HEAD, POST"
    assert answer.headers["content-type"] == "application/problem+json"


async def test_head_is_get_without_its_body(world: World) -> None:
    made = await world.subscription()
    for path in (f"/v1/subscriptions/{made['id']}", "/v1/whoami", "/healthz", "/nope"):
        shown, bare = await world.call("GET", path), await world.call("HEAD", path)
        assert (bare.status, bare.raw) == (shown.status, b"")
        assert bare.headers["content-type"] == shown.headers["content-type"]
        assert bare.headers.get("etag") == shown.headers.get("etag")


@pytest.mark.parametrize("sane", ["req_1", "0192f0c1-a2b3", "a" * 128, "trace:1.2"])
async def test_a_sane_request_id_is_kept(world: World, sane: str) -> None:
    answer = await world.call("GET", "/nope", headers={"x-request-id": sane})
    assert answer.headers["x-request-id"] == answer.json["request_id"] == sane


@pytest.mark.parametrize("secret", ["hkt_" + "a" * 49, "x-HTS_" + "a" * 43, "whsec_QUJDQUJD", "whsk_QUJD"])
async def test_a_secret_sent_as_request_id_is_neither_logged_nor_echoed(world: World, secret: str) -> None:
    with structlog.testing.capture_logs() as lines:
        answer = await world.call("GET", "/nope", headers={"x-request-id": secret})
    assert answer.json["request_id"].startswith("req_")
    assert secret not in f"{lines}{answer.headers}{answer.raw!r}"


async def test_two_authorization_headers_are_refused(world: World) -> None:
    """A proxy may have judged one of the headers, and the gateway the other."""
    mine = f"authorization: Bearer {world.keys.consumer}"
    async with Dialled(world.gateway.listen) as wire:
        for second in (mine, "Authorization: Bearer hkt_x", "authorization:"):
            await wire.send(head("GET", "/v1/whoami", mine, second))
            answer = await wire.answer()
            assert (answer.status, answer.json["errors"][0]["header"]) == (400, "Authorization")


async def test_a_json_answer_ends_with_a_newline(world: World) -> None:
    """After curl, the shell prompt is then on a line of its own."""
    for path in ("/healthz", "/v1/whoami", "/v1/subscriptions", "/nope"):
        assert (await world.call("GET", path)).raw.endswith(b"}\n")
    for path in ("/healthz", "/readyz"):
        async with world.http.get(f"http://{world.gateway.admin}{path}") as answer:
            assert (await answer.read()).endswith(b"}\n")


@pytest.mark.parametrize("insane", ["", "a b", "a" * 129, "<script>", 'a"b'])
async def test_another_request_id_is_replaced(world: World, insane: str) -> None:
    answer = await world.call("GET", "/nope", headers={"x-request-id": insane})
    assert answer.headers["x-request-id"] == answer.json["request_id"]
    assert answer.json["request_id"].startswith("req_")


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/v1/whoami", 200), ("/nope", 404), ("/v1/keys", 403)])
async def test_every_answer_is_dressed_for_the_public(world: World, path: str, status: int) -> None:
    answer = await world.call("GET", path)
    assert answer.status == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["server"] == "hooktide"
    assert answer.headers["x-request-id"]


async def test_one_line_is_logged_for_each_request_and_no_secret_with_it(world: World) -> None:
    secret = "whsec_" + "QUJD" * 8
    with structlog.testing.capture_logs() as lines:
        made = await world.subscription(secret=secret)
        await world.call("GET", f"/v1/subscriptions?limit=2&key={world.keys.consumer}")
        await world.call("GET", f"/v1/subscriptions/{made['id']}/secret")
        await world.call("GET", f"/{world.keys.consumer}")
        created = await world.call("POST", "/v1/keys", {"role": "emitter"}, key=world.keys.admin)
    ours = [line for line in lines if line["event"] == "request.done"]
    assert [(line["method"], line["route"], line["status"]) for line in ours] == [
        ("POST", "/v1/subscriptions", 201),
        ("GET", "/v1/subscriptions", 400),
        ("GET", "/v1/subscriptions/{id}/secret", 200),
        ("GET", "-", 404),
        ("POST", "/v1/keys", 201),
    ]
    assert ours[0]["consumer"] == world.keys.consumer_id
    assert ours[0]["key"].startswith("key_")
    assert ours[0]["duration_ms"] >= 0
    text = str(lines)
    for hidden in (secret, world.keys.consumer, world.keys.admin, created.json["key"]):
        assert hidden not in text


async def test_a_fault_of_our_own_is_logged_and_not_told(world: World) -> None:
    """A record that is no CloudEvent cannot be shown; the client learns only that the server failed."""
    event_id = world.log.append(cloud_event("1", "broken"))
    world.log.records[-1].event = b"\xff\xff"
    with structlog.testing.capture_logs() as lines:
        answer = await world.call("GET", f"/v1/events/{event_id}")
    del world.log.records[-1]
    assert (answer.status, answer.json["reason"], answer.json["errors"]) == (500, "INTERNAL", [])
    assert [line["event"] for line in lines] == ["request.failed", "request.done"]


async def test_a_connection_serves_one_request_after_another(world: World) -> None:
    request = head("GET", "/v1/whoami", f"authorization: Bearer {world.keys.consumer}")
    refused = head("POST", "/v1/subscriptions", "content-length: 2") + b"{}"
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(request + request)
        assert [(await wire.answer()).status for _ in range(2)] == [200, 200]
        await wire.send(refused + request)
        assert [(await wire.answer()).status for _ in range(2)] == [401, 200]


async def test_slow_clients_are_let_go(tmp_path: Path) -> None:
    """Neither headers, nor a body, nor the reading of an answer may take for ever."""
    async with running_world(tmp_path, HURRIED, gateway={"HOOKTIDE_GATEWAY_HEADERS_SECONDS": "0.3"}) as world:
        whose = f"authorization: Bearer {world.keys.consumer}"
        async with Dialled(world.gateway.listen) as silent, Dialled(world.gateway.listen) as dripping:
            await dripping.send(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
            assert await silent.ended()
            assert await dripping.ended()
        async with Dialled(world.gateway.listen) as half:
            await half.send(head("POST", "/v1/subscriptions", whose, "content-type: application/json", "content-length: 20"), b'{"sink"')
            answer = await half.answer()
            assert (answer.status, answer.json["reason"]) == (400, "MALFORMED_BODY")
            assert "0.3 seconds" in answer.json["detail"]
            assert await half.ended()
        for _ in range(12):
            world.log.append(cloud_event("1", "big", json.dumps("x" * 500_000)))
        with structlog.testing.capture_logs() as lines:
            async with Dialled(world.gateway.listen, receive_bytes=4096) as deaf:
                await deaf.send(head("GET", "/v1/events?type=big", whose))
                await until(lambda: any(line["event"] == "request.done" for line in lines))
                async with asyncio.timeout(60):
                    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                        await deaf.reader.readexactly(6_000_000)
        assert lines[-1]["duration_ms"] >= HURRIED.answer_s * 1000


async def test_a_client_that_goes_away_half_way_is_no_fault(world: World) -> None:
    with structlog.testing.capture_logs() as lines:
        async with Dialled(world.gateway.listen) as wire:
            whose = f"authorization: Bearer {world.keys.consumer}"
            await wire.send(head("POST", "/v1/subscriptions", whose, "content-type: application/json", "content-length: 20"), b"{")
        await until(lambda: bool(lines))
        await world.subscription(sink=SINK)
    assert [line["event"] for line in lines] == ["request.done"] * 2
