"""Hostile requests: bytes that are not HTTP, and heads that no client sends, over real sockets."""

import contextlib

import pytest
import structlog

from tests.gateway.raw_http import Dialled, head
from tests.gateway.world import World
from tests.support.waiting import until

JSON = "content-type: application/json"


@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"),
    [
        (b"NONSENSE\r\n\r\n", 400, "INVALID_ARGUMENT"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "INVALID_ARGUMENT"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "INVALID_ARGUMENT"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n", 400, "INVALID_ARGUMENT"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}", 400, "INVALID_ARGUMENT"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}", 400, "INVALID_ARGUMENT"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 413, "REQUEST_TOO_LARGE"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 9000 + b"\r\n\r\n", 413, "REQUEST_TOO_LARGE"),
        (b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: a\r\n" * 200 + b"\r\n", 400, "INVALID_ARGUMENT"),
    ],
    ids=["words", "version", "tls", "header", "two lengths", "length and chunks", "long line", "long header", "many headers"],
)
async def test_what_is_no_http_is_a_problem_like_all_others(world: World, request_bytes: bytes, status: int, reason: str) -> None:
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(request_bytes)
        answer = await wire.answer()
        assert (answer.status, answer.json["reason"]) == (status, reason)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == answer.json["request_id"]
        assert answer.headers["server"] == "hooktide"
        assert await wire.ended()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /%b HTTP/9.9\r\n\r\n",
        b"GET http://[%b HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nauthorization Bearer %b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %b" + b"x" * 9000 + b"\r\n\r\n",
        b"%b / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx\x00%b: b\r\n\r\n",
    ],
    ids=["version", "target", "no colon", "long line", "method", "name"],
)
async def test_a_key_in_what_is_no_http_reaches_neither_the_log_nor_the_answer(world: World, request_bytes: bytes) -> None:
    with structlog.testing.capture_logs() as lines:
        async with Dialled(world.gateway.listen) as wire:
            await wire.send(request_bytes.replace(b"%b", world.keys.consumer.encode()))
            answer = await wire.answer()
    assert answer.status >= 400
    assert lines
    assert world.keys.consumer not in f"{lines}{answer.headers}{answer.raw!r}"


async def test_what_follows_a_request_to_upgrade_is_not_gathered_in_memory(world: World) -> None:
    """The gateway upgrades no connection. A client that goes on sending before its answer is cut off."""
    world.log.gate.clear()
    request = head("GET", "/v1/events", f"authorization: Bearer {world.keys.consumer}", "connection: upgrade", "upgrade: websocket")
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(request)
        await until(lambda: world.log.under_way > 0)
        with contextlib.suppress(ConnectionError):
            await wire.send(*[b"x" * 64 * 1024] * 64)
        assert await wire.ended()
    world.log.gate.set()
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(request)
        assert (await wire.answer()).status == 200


@pytest.mark.parametrize("header", ["authorization", "if-match", "idempotency-key", "x-request-id", "content-type"])
async def test_headers_of_any_bytes_are_survived(world: World, header: str) -> None:
    request = head("PATCH", "/v1/subscriptions/sub_1", f"authorization: Bearer {world.keys.consumer}", "content-length: 2")
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(request[:-2] + header.encode() + b": \xff\xfe\xc3\x28\r\n\r\n{}")
        answer = await wire.answer()
        assert 400 <= answer.status < 500
        assert answer.json["request_id"].startswith("req_")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/subscriptions/%00",
        "/v1/events/%F0%9F%8C%8A",
        "/v1/deliveries/..%2F..%2Fetc",
        "/v1/event-types/%ED%A0%80",
        "/v1/subscriptions/" + "a" * 4000,
    ],
)
async def test_ids_of_any_characters_are_not_found(world: World, path: str) -> None:
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(head("GET", path, f"authorization: Bearer {world.keys.consumer}"))
        assert (await wire.answer()).status == 404
