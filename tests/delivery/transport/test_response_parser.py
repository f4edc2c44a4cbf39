"""Response parser: how an answer is read over a connection, up to which limits, and when the connection may be kept."""

import asyncio

import pytest

from services.delivery.transport.protocol import Outcome
from services.delivery.transport.response_parser import HEAD_BYTES_MAX
from tests.delivery.sending import answer_to, post, sending
from tests.support.webhook_receivers.hostile_receivers import OK, Connection, answering, answering_once, endless, hostile, status


@pytest.mark.parametrize(
    ("raw", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", 2),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 2),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", 1),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;a=b\r\no\r\n1\r\nk\r\n0\r\nx: y\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", 1),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nx: y\r\n\r\n" + OK, 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n", 1),
        (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", 1),
    ],
    ids=ascii,
)
async def test_a_connection_is_kept_as_far_as_its_answer_permits(raw: bytes, connections: int) -> None:
    async with hostile(answering(raw)) as server, sending() as transport:
        answers = [await answer_to(transport, post(server.url)) for _ in range(2)]
    assert [answer.status for answer in answers] == [int(raw[9:12]) if b"102" not in raw else 200] * 2
    assert server.connections == connections


@pytest.mark.parametrize("ends", ["", "transfer-encoding: identity\r\n"])
async def test_an_answer_without_a_length_ends_with_its_connection(ends: str) -> None:
    async with hostile(answering_once(f"HTTP/1.1 500 No\r\n{ends}\r\nwhy".encode())) as server, sending() as transport:
        answer = await answer_to(transport, post(server.url))
    assert (answer.outcome, answer.status, answer.body) == (Outcome.STATUS, 500, b"why")


async def test_an_answer_may_come_byte_by_byte() -> None:
    raw = b"HTTP/1.1 103 Hints\r\na: b\r\n\r\nHTTP/1.1 503 No\r\nretry-after: 7\r\ntransfer-encoding: chunked\r\n\r\n3\r\nwhy\r\n0\r\n\r\n"

    async def behave(connection: Connection) -> None:
        while await connection.request() is not None:
            for byte in raw:
                await connection.send(bytes([byte]))
                await asyncio.sleep(0)

    async with hostile(behave) as server, sending() as transport:
        for _ in range(2):
            answer = await answer_to(transport, post(server.url))
            assert (answer.status, answer.body, answer.retry_after) == (503, b"why", "7")
    assert server.connections == 1


async def test_a_head_is_read_up_to_its_limit() -> None:
    filling = "x: " + "y" * (HEAD_BYTES_MAX // 2)
    async with hostile(answering(status(200, filling))) as server, sending() as transport:
        assert (await answer_to(transport, post(server.url))).status == 200
    async with hostile(answering(status(200, *[filling] * 5))) as server, sending() as transport:
        assert (await answer_to(transport, post(server.url))).outcome is Outcome.PROTOCOL


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", b"x: y\r\n" * 1000),
        (b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: ", b"y" * 10_000),
        (b"transfer-encoding: chunked\r\n\r\n2;", b"x" * 10_000),
        (b"", b"x: y\r\n" * 1000),
    ],
    ids=["trailers", "one trailer", "an extension of a chunk", "headers"],
)
async def test_what_frames_an_answer_is_read_up_to_a_limit(start: bytes, piece: bytes) -> None:
    """Otherwise memory would grow for as long as a request may take."""
    async with hostile(endless(b"HTTP/1.1 200 OK\r\n" + start, piece)) as server, sending() as transport:
        assert (await answer_to(transport, post(server.url))).outcome is Outcome.PROTOCOL


async def test_an_answer_in_the_smallest_chunks_is_read_whole() -> None:
    raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 60_000 + b"0\r\n\r\n"
    async with hostile(answering(raw)) as server, sending() as transport:
        assert (await answer_to(transport, post(server.url)._replace(whole=True))).body == b"x" * 60_000
