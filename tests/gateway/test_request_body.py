"""Request body: what a body may be, and when reading it stops, over real sockets."""

import json

import pytest

from tests.gateway.raw_http import Dialled, head
from tests.gateway.world import BODY_BYTES_MAX, SINK, Answer, World

JSON = "content-type: application/json"


async def sent(world: World, raw: bytes, content_type: str = "application/json") -> Answer:
    return await world.call("POST", "/v1/subscriptions", raw=raw, headers={"content-type": content_type})


@pytest.mark.parametrize(
    "raw",
    [
        b'{"sink":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"sink":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
        b'{"sink":"a","sink":"b"}',
        b'{"sink":NaN}',
        b'{"sink":Infinity}',
        b'{"sink":"\\ud800"}',
        b'{"sink":"\xff"}',
        b'{"sink":1e400}',
        b'{"sink":' + b"9" * 5000 + b"}",
        b"[]",
        b"null",
        b"{",
        b"",
        b"sink=https%3A%2F%2Fa.example",
    ],
    ids=lambda raw: raw[:20],
)
async def test_what_is_no_json_object_is_a_malformed_body(world: World, raw: bytes) -> None:
    answer = await sent(world, raw)
    assert (answer.status, answer.json["reason"]) == (400, "MALFORMED_BODY")
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.raw) < 1000


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/merge-patch+json",
        "json",
        "*/*",
    ],
)
async def test_another_content_type_is_refused_before_the_body_is_read(world: World, content_type: str) -> None:
    answer = await sent(world, b"x" * 1000, content_type)
    assert (answer.status, answer.json["reason"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert answer.headers["accept"] == "application/json"


async def test_a_patch_may_call_itself_json_or_merge_patch_and_says_so(world: World) -> None:
    made = await world.subscription()
    path = f"/v1/subscriptions/{made['id']}"
    for content_type in ("application/json", "application/merge-patch+json; charset=UTF-8"):
        assert (await world.call("PATCH", path, {"types": ["a"]}, headers={"content-type": content_type})).status == 200
    refused = await world.call("PATCH", path, {"types": ["a"]}, headers={"content-type": "application/json-patch+json"})
    assert (refused.status, refused.headers["accept-patch"]) == (415, "application/merge-patch+json, application/json")


async def test_a_compressed_body_is_not_unfolded(world: World) -> None:
    answer = await world.call("POST", "/v1/subscriptions", raw=b"x", headers={"content-encoding": "gzip"})
    assert answer.json["reason"] == "UNSUPPORTED_MEDIA_TYPE"


@pytest.mark.parametrize(("over", "reason"), [(0, "INVALID_ARGUMENT"), (1, "REQUEST_TOO_LARGE")])
async def test_a_body_may_have_as_many_bytes_as_the_limit_and_not_one_more(world: World, over: int, reason: str) -> None:
    frame = json.dumps({"sink": SINK, "config": {"description": ""}})
    body = frame.replace('""', '"' + "x" * (BODY_BYTES_MAX + over - len(frame)) + '"').encode()
    assert len(body) == BODY_BYTES_MAX + over
    answer = await sent(world, body)
    assert (answer.status, answer.json["reason"]) == (413 if over else 400, reason)


async def test_a_length_over_the_limit_is_refused_before_any_of_it_is_sent(world: World) -> None:
    request = head("POST", "/v1/subscriptions", f"authorization: Bearer {world.keys.consumer}", JSON, "content-length: 999999999999")
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(request)
        answer = await wire.answer()
        assert (answer.status, answer.json["reason"]) == (413, "REQUEST_TOO_LARGE")
        assert answer.headers["connection"] == "close"
        assert await wire.ended()


async def test_chunks_without_end_are_cut_off_at_the_limit(world: World) -> None:
    request = head("POST", "/v1/subscriptions", f"authorization: Bearer {world.keys.consumer}", JSON, "transfer-encoding: chunked")
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(request)
        chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
        await wire.send(*[chunk] * (BODY_BYTES_MAX // 1024 + 1))
        answer = await wire.answer()
        assert (answer.status, answer.json["reason"]) == (413, "REQUEST_TOO_LARGE")
        assert await wire.ended()


@pytest.mark.parametrize(("over", "status"), [(0, 400), (1, 413)])
async def test_chunks_are_counted_to_the_byte(world: World, over: int, status: int) -> None:
    request = head("POST", "/v1/subscriptions", f"authorization: Bearer {world.keys.consumer}", JSON, "transfer-encoding: chunked")
    size = BODY_BYTES_MAX + over
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(request, b"%x\r\n" % size + b" " * size + b"\r\n0\r\n\r\n")
        assert (await wire.answer()).status == status


@pytest.mark.parametrize("chunks", [b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n", b"2\r\n{}0\r\n\r\n"])
async def test_chunks_that_are_none_are_a_problem_and_end_the_connection(world: World, chunks: bytes) -> None:
    request = head("POST", "/v1/subscriptions", f"authorization: Bearer {world.keys.consumer}", JSON, "transfer-encoding: chunked")
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(request, chunks)
        answer = await wire.answer()
        assert answer.status == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert await wire.ended()


async def test_chunks_are_a_body_like_any_other(world: World) -> None:
    body = json.dumps({"sink": SINK}).encode()
    request = head("POST", "/v1/subscriptions", f"authorization: Bearer {world.keys.consumer}", JSON, "transfer-encoding: chunked")
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(request, *(b"1\r\n%c\r\n" % byte for byte in body), b"0\r\n\r\n")
        assert (await wire.answer()).status == 201


async def test_a_client_that_waits_for_consent_gets_it_only_where_its_body_is_wanted(world: World) -> None:
    body = json.dumps({"sink": SINK}).encode()
    lines = (JSON, f"content-length: {len(body)}", "expect: 100-continue")
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(head("POST", "/v1/subscriptions", f"authorization: Bearer {world.keys.consumer}", *lines))
        assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.send(body)
        assert (await wire.answer()).status == 201
    async with Dialled(world.gateway.listen) as wire:
        await wire.send(head("POST", "/v1/subscriptions", *lines))
        assert (await wire.answer()).status == 401
        assert wire.interim == []
