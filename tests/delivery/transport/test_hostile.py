"""Hostile endpoints: how each is recorded, and that it costs no more than its limits."""

import asyncio
import time

import psutil
import pytest

from services.delivery.transport.protocol import RESPONSE_BYTES_KEPT, Answer, Outcome, Request
from tests.delivery.sending import LIMITS, answer_to, post, sending, sent
from tests.support.webhook_receivers.endless_answers import flood
from tests.support.webhook_receivers.hostile_receivers import (
    OK,
    Behaviour,
    Connection,
    answering,
    answering_once,
    black_hole,
    bomb,
    closing,
    dripping,
    endless,
    hostile,
    resetting,
    silent,
    status,
)

_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_CHUNK = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"


async def answer_of(behaviour: Behaviour, **limits: float) -> Answer:
    async with hostile(behaviour) as server, sending(**limits) as transport:  # type: ignore[arg-type]  # limits alone
        return await answer_to(transport, post(server.url))


async def test_a_connection_that_is_never_made_ends_at_the_connect_timeout() -> None:
    async with black_hole() as url, sending(connect_timeout_s=0.3) as transport:
        began = time.monotonic()
        answer = await answer_to(transport, post(url))

    assert (answer.outcome, answer.status) == (Outcome.CONNECT, 0)
    assert 0.25 < time.monotonic() - began < LIMITS.timeout_s / 2


async def test_a_refused_connection_is_a_failure_to_connect() -> None:
    async with hostile(silent) as server:
        gone = server.url
    async with sending() as transport:
        answer = await answer_to(transport, post(gone))

    assert (answer.outcome, answer.error) == (Outcome.CONNECT, "no connection to the server could be made")


async def test_an_answer_that_never_begins_ends_at_its_own_limit() -> None:
    began = time.monotonic()
    answer = await answer_of(silent, first_byte_timeout_s=0.3)

    assert answer.outcome is Outcome.TIMEOUT
    assert "began" in answer.error
    assert time.monotonic() - began < LIMITS.timeout_s / 2


async def test_an_endpoint_that_never_answers_ends_at_the_total_timeout() -> None:
    assert (await answer_of(silent, timeout_s=0.3)).outcome is Outcome.TIMEOUT


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: "])
async def test_an_answer_of_one_byte_at_a_time_ends_at_the_total_timeout(start: bytes) -> None:
    began = time.monotonic()
    answer = await answer_of(dripping(0.02, start), timeout_s=0.5)

    # An answer that does not begin as HTTP is refused at once.
    assert answer.outcome is (Outcome.TIMEOUT if start else Outcome.PROTOCOL)
    assert time.monotonic() - began < LIMITS.timeout_s / 2


async def test_a_request_may_set_its_own_timeout() -> None:
    async with hostile(silent) as server, sending() as transport:
        answer = await answer_to(transport, post(server.url)._replace(timeout_s=0.2))

    assert answer.outcome is Outcome.TIMEOUT


@pytest.mark.parametrize("number", [200, 500])
@pytest.mark.parametrize("framing", ["chunked", "until closed", "announced"])
async def test_an_endless_body_is_cut_and_its_status_counts(number: int, framing: str) -> None:
    head = f"HTTP/1.1 {number} Said\r\n".encode()
    match framing:
        case "chunked":
            start, piece = head + b"transfer-encoding: chunked\r\n\r\n", _CHUNK
        case "until closed":
            start, piece = head + b"\r\n", b"x" * 0x4000
        case _:
            start, piece = head + b"content-length: 1000000000000\r\n\r\n", b"x" * 0x4000
    answer = await answer_of(endless(start, piece))

    assert answer.status == number
    assert answer.outcome is (Outcome.DELIVERED if number == 200 else Outcome.STATUS)
    assert answer.body == (b"" if number == 200 else b"x" * RESPONSE_BYTES_KEPT)


async def test_a_packed_body_stays_packed() -> None:
    answer = await answer_of(answering(bomb("content-encoding")))

    assert (answer.outcome, answer.status) == (Outcome.STATUS, 500)
    assert answer.body.startswith(b"\x1f\x8b")
    assert len(answer.body) == RESPONSE_BYTES_KEPT


async def test_a_body_packed_for_the_transfer_is_not_unpacked_beyond_the_limit() -> None:
    packed = answering(bomb("transfer-encoding"))
    before = psutil.Process().memory_info().rss
    answer = await answer_of(packed)

    assert answer.outcome is Outcome.PROTOCOL
    assert psutil.Process().memory_info().rss - before < 8 << 20


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(answering_once(b"HTTP/1.1 200 OK\r\nx: " + b"y" * (1 << 20) + b"\r\n\r\n"), id="a line of a megabyte"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000), id="lines without end"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 10_000), id="a line without end"),
        pytest.param(endless(b"HTTP/1.1 200 OK\r\n", (b"x: " + b"y" * 8000 + b"\r\n") * 10), id="long lines without end"),
        pytest.param(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), id="interim answers without end"),
        pytest.param(endless(b"", b"y" * 10_000), id="no line end"),
    ],
)
async def test_a_huge_head_is_an_error_within_bounds(behaviour: Behaviour) -> None:
    before = psutil.Process().memory_info().rss
    answer = await answer_of(behaviour, timeout_s=10.0)

    assert (answer.outcome, answer.status) == (Outcome.PROTOCOL, 0)
    assert psutil.Process().memory_info().rss - before < 16 << 20


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n\r\n",
        b"\x00\x01\x02\xff" * 20,
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"RTSP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"ICE/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nRTSP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n\r\nHTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 12abc\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nx: \x00\r\n\r\n",
        b"<html>200 OK</html>\r\n\r\n",
    ],
)
async def test_a_malformed_answer_is_no_http(raw: bytes) -> None:
    answer = await answer_of(answering_once(raw))

    assert (answer.outcome, answer.status) == (Outcome.PROTOCOL, 0)
    assert "127.0.0.1" not in answer.error


@pytest.mark.parametrize("protocol", ["RTSP/1.0", "HTTP/2.0", "HTTP/1.1 100 Continue\r\n\r\nRTSP/1.0"])
async def test_another_protocols_answer_is_none_either_if_it_comes_byte_by_byte(protocol: str) -> None:
    async def behave(connection: Connection) -> None:
        await connection.request()
        for byte in f"{protocol} 200 OK\r\ncontent-length: 0\r\n\r\n".encode():
            await connection.send(bytes([byte]))
            await asyncio.sleep(0)

    assert (await answer_of(behave)).outcome is Outcome.PROTOCOL


@pytest.mark.parametrize("number", [100, 102, 103, 199])
async def test_an_interim_answer_alone_is_none(number: int) -> None:
    assert (await answer_of(answering_once(f"HTTP/1.1 {number} Wait\r\n\r\n".encode()))).outcome is Outcome.RESET


async def test_an_interim_answer_before_the_real_one_does_no_harm() -> None:
    answer = await answer_of(answering(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK))

    assert (answer.outcome, answer.status) == (Outcome.DELIVERED, 200)


async def test_a_switch_of_protocols_is_a_failure() -> None:
    answer = await answer_of(answering_once(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"))

    assert (answer.outcome, answer.status) == (Outcome.PROTOCOL, 0)


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(resetting, id="reset"),
        pytest.param(closing, id="closed"),
        pytest.param(answering_once(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"), id="half a body"),
        pytest.param(answering_once(_CHUNKED + b"10\r\nhalf"), id="half a chunk"),
        pytest.param(answering_once(b"HTTP/1.1 200"), id="half a line"),
    ],
)
async def test_a_connection_that_breaks_after_the_request_leaves_the_outcome_unknown(behaviour: Behaviour) -> None:
    async with hostile(behaviour) as server, sending() as transport:
        answer = await answer_to(transport, post(server.url))

    assert (answer.outcome, answer.status) == (Outcome.RESET, 0)
    assert len(server.requests) == 1, "the endpoint may have acted on it: it is for the retry policy to try again"


@pytest.mark.parametrize("number", [300, 301, 302, 303, 304, 305, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(number: int) -> None:
    async with hostile(answering(OK)) as canary:
        answer = await answer_of(answering(status(number, f"location: {canary.url}", f"refresh: 0;url={canary.url}")))

    assert (answer.outcome, answer.status) == (Outcome.STATUS, number)
    assert canary.connections == 0


@pytest.mark.parametrize("value", ["120", "0", "-5", "soon", "", "9" * 24, "1e99", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_retry_after_is_handed_on_as_it_came(value: str) -> None:
    """The retry policy decides what the header means."""
    answer = await answer_of(answering(status(503, f"Retry-After: {value}", body="busy")))

    assert (answer.outcome, answer.status, answer.body) == (Outcome.STATUS, 503, b"busy")
    assert answer.retry_after == value


async def test_of_a_huge_retry_after_little_is_kept() -> None:
    answer = await answer_of(answering(status(503, f"retry-after: {'1' * 10_000}", body="busy")))

    assert set(answer.retry_after) == {"1"}
    assert len(answer.retry_after) < 1000


async def test_memory_stays_flat_under_a_thousand_endless_answers_at_once() -> None:
    """As many requests are under way as a service may have, and all their answers begin before any of them goes on without end."""
    process, peaks = psutil.Process(), []
    limits = {"connections_max": 1000, "host_connections_max": 1000, "timeout_s": 60.0, "first_byte_timeout_s": 60.0}
    async with flood(1000) as url, sending(**limits) as transport:  # type: ignore[arg-type]  # limits alone
        before = process.memory_info().rss
        for _ in range(3):
            answers = asyncio.gather(*(sent(transport, post(url)) for _ in range(1000)))
            peak = 0
            while not answers.done():
                await asyncio.wait([answers], timeout=0.02)
                peak = max(peak, process.memory_info().rss)
            assert {(each.outcome, each.status, len(each.body)) for each in answers.result()} == {
                (Outcome.STATUS, 500, RESPONSE_BYTES_KEPT)
            }
            peaks.append(peak - before)

    # The first round allocates what an answer and its connection need; later rounds allocate nothing more, however often they run.
    assert peaks[0] < 64 << 20, f"grown by {peaks[0] >> 20} MiB"
    assert max(peaks) - peaks[0] < 16 << 20, [peak >> 20 for peak in peaks]


async def test_the_words_of_a_failure_name_no_address() -> None:
    async with sending() as transport:
        answer = await answer_to(transport, Request("http://127.0.0.1:1/", {}, b""))

    assert "127.0.0.1" not in answer.error
