"""Connection: what a sink may do to one at odd moments, and that no request gets another request's answer."""

import asyncio
import contextlib
import socket
import sys
import threading
from pathlib import Path

import pytest

from services.delivery.transport.http import open_http_transport
from services.delivery.transport.protocol import Outcome
from services.egress.policy import EgressPolicy
from tests.delivery.sending import LIMITS, LOOPBACK, answer_to, post, sending, sent
from tests.support.certificates import Authority
from tests.support.webhook_receivers.endless_tickets import flooding
from tests.support.webhook_receivers.hostile_receivers import OK, Connection, answering, hostile, status

LARGE = b"x" * (4 << 20)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize("extra", [OK, status(500), b"HTTP/1.1 200", b"H", b"\r\n", b"\x00" * 100], ids=ascii)
@pytest.mark.parametrize("tls", [True, False])
async def test_what_follows_an_answer_unasked_is_no_answer_to_the_next_request(*, tls: bool, extra: bytes, authority: Authority) -> None:
    """If the extra bytes counted as an answer, each later request would get the answer of the request before."""

    async def behave(connection: Connection) -> None:
        while (request := await connection.request()) is not None:
            await connection.send(status(int(request.rpartition(b"\r\n\r\n")[2])) + extra)

    context = authority.server("127.0.0.1") if tls else None
    async with hostile(behave, tls=context) as server, sending(roots=authority.file) as transport:
        for wanted in (201, 404, 202, 503):
            assert (await answer_to(transport, post(server.url, str(wanted).encode()))).status == wanted


async def test_an_answer_that_is_given_again_is_taken_again_and_any_other_for_what_it_is() -> None:
    """A repeated answer may be read whole or not, in one piece or in two, over one connection, until an answer closes it."""
    taken, failed, longer = status(200, body="taken"), status(500, body="t0ken"), status(202, "x: y")
    in_two = [taken[:20], taken[20:]]
    plan = [[taken], [taken], in_two, [failed], [taken], [longer], [longer], [taken], [failed], [taken], [status(200, "connection: close")]]
    wanted = [200, 200, 200, 500, 200, 202, 202, 200, 500, 200, 200]
    pieces = iter(plan)

    async def behave(connection: Connection) -> None:
        while await connection.request() is not None:
            for piece in next(pieces):
                await connection.send(piece)
                await asyncio.sleep(0.02)

    async with hostile(behave) as server, sending() as transport:
        answers = [await answer_to(transport, post(server.url)._replace(whole=number == 1)) for number in range(len(plan))]
    assert [answer.status for answer in answers] == wanted
    assert [answer.body for answer in answers] == [
        b"taken" if number == 1 else b"t0ken" if each == 500 else b"" for number, each in enumerate(wanted)
    ]
    assert server.connections == 1


async def test_what_comes_over_an_idle_connection_is_its_end() -> None:
    answered, ended = asyncio.Event(), asyncio.Event()

    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.send(OK)
        await answered.wait()
        await connection.send(status(599))
        assert await connection.request() is None
        ended.set()

    async with hostile(behave) as server, sending() as transport:
        assert (await answer_to(transport, post(server.url))).status == 200
        answered.set()
        await asyncio.wait_for(ended.wait(), 60)
        assert (await answer_to(transport, post(server.url))).status == 200
    assert server.connections == 2


@pytest.mark.parametrize("closes", [True, False])
async def test_an_answer_that_comes_before_the_request_is_whole_counts(*, closes: bool) -> None:
    """An endpoint may refuse such a large body early; the connection then serves no other request."""

    async def behave(connection: Connection) -> None:
        head = await connection.reader.readuntil(b"\r\n\r\n")
        if b"Content-Length: 2\r\n" in head:
            await connection.send(OK)
            return
        await connection.send(status(413))
        if closes:
            connection.writer.close()
        else:
            await asyncio.Event().wait()

    async with hostile(behave) as server, sending() as transport:
        assert (await answer_to(transport, post(server.url, LARGE))).status == 413
        assert (await answer_to(transport, post(server.url))).status == 200


@pytest.mark.parametrize("begins", [len(OK), len(OK) - 2, 3], ids=["whole", "its head", "a few bytes"])
async def test_a_success_that_comes_before_the_request_is_whole_has_delivered_nothing(begins: int) -> None:
    """Only the endpoint knows what it took, so the attempt fails and a retry uses another connection."""

    async def behave(connection: Connection) -> None:
        head = await connection.reader.readuntil(b"\r\n\r\n")
        size = int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0])
        if size == len(LARGE):
            await connection.send(OK[:begins])
        await connection.reader.readexactly(size)
        await connection.send(OK[begins:] if size == len(LARGE) else OK)
        assert await connection.request() is None or begins == 3

    async with hostile(behave) as server, sending() as transport:
        answer = await answer_to(transport, post(server.url, LARGE))
        # From a few bytes the transport cannot tell what the answer will be.
        assert answer.outcome is (Outcome.DELIVERED if begins == 3 else Outcome.PROTOCOL)
        assert (await answer_to(transport, post(server.url))).outcome is Outcome.DELIVERED
    assert server.connections == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a peer has acknowledged")
async def test_a_success_is_none_while_the_request_has_not_all_reached_the_endpoint() -> None:
    """The request has left this process, but the endpoint's kernel has no room for it."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        over = threading.Event()

        def serve() -> None:
            with listening.accept()[0] as connected:
                connected.recv(64)
                connected.sendall(OK)
                over.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            async with sending() as transport:
                url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
                assert (await answer_to(transport, post(url, b"x" * 200_000))).outcome is Outcome.PROTOCOL
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("tls", [True, False])
async def test_what_comes_unasked_just_before_the_next_request_is_not_its_answer(*, tls: bool, authority: Authority) -> None:
    """The event loop has not read these bytes yet."""
    context = authority.server("127.0.0.1") if tls else None
    answered, sent_more = threading.Event(), threading.Event()

    def serve() -> None:
        for number in (201, 202):
            raw = listening.accept()[0]
            with context.wrap_socket(raw, server_side=True) if context else raw as connected:
                connected.recv(65536)
                connected.sendall(status(number))
                if number == 201:
                    answered.wait(60)
                    connected.sendall(status(599))
                    sent_more.set()
                with contextlib.suppress(OSError):
                    connected.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        async with sending(roots=authority.file) as transport:
            url = f"{'https' if tls else 'http'}://127.0.0.1:{listening.getsockname()[1]}/"
            assert (await answer_to(transport, post(url))).status == 201
            answered.set()
            assert sent_more.wait(60), "the loop stands still meanwhile"
            assert (await answer_to(transport, post(url))).status == 202
        thread.join()


async def test_what_an_endpoint_sends_before_it_has_a_request_is_no_answer() -> None:
    loop, has_sent, judged = asyncio.get_running_loop(), threading.Event(), list[str]()

    class Waiting(EgressPolicy):
        def check_address(self, address: str) -> str | None:
            judged.append(address)
            # The first call judges the URL. Right after the socket begins to connect, the loop stands still until the endpoint has
            # sent.
            if len(judged) == 2:
                loop.call_soon(has_sent.wait, 10)
            return super().check_address(address)

    def serve() -> None:
        with listening.accept()[0] as connected:
            connected.sendall(OK)
            has_sent.set()
            with contextlib.suppress(OSError):
                connected.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        async with open_http_transport(Waiting(allow=LOOPBACK), LIMITS) as transport:
            answer = await answer_to(transport, post(f"http://127.0.0.1:{listening.getsockname()[1]}/"))
        thread.join()
    assert (answer.outcome, answer.status) == (Outcome.PROTOCOL, 0)


async def test_a_request_that_is_never_read_ends_at_its_time() -> None:
    async def behave(_connection: Connection) -> None:
        await asyncio.Event().wait()

    async with hostile(behave) as server, sending(timeout_s=0.5) as transport:
        assert (await answer_to(transport, post(server.url, LARGE * 4))).outcome is Outcome.TIMEOUT


@pytest.mark.parametrize("tls", [True, False])
async def test_a_large_request_and_a_large_answer_pass_whole(*, tls: bool, authority: Authority) -> None:
    answer = status(200, body="y" * 60_000)
    context = authority.server("127.0.0.1") if tls else None
    async with hostile(answering(answer), tls=context) as server, sending(roots=authority.file) as transport:
        for _ in range(2):
            assert (await answer_to(transport, post(server.url, LARGE)._replace(whole=True))).body == b"y" * 60_000
    assert server.connections == 1
    assert all(request.endswith(LARGE) for request in server.requests)


async def test_an_idle_connection_is_let_go_of_after_its_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.delivery.transport.pool._IDLE_S", 0.3)
    ended = asyncio.Event()

    async def behave(connection: Connection) -> None:
        while await connection.request() is not None:
            await connection.send(OK)
        ended.set()

    async with hostile(behave) as server, sending() as transport:
        await answer_to(transport, post(server.url))
        async with asyncio.timeout(LIMITS.timeout_s):
            await ended.wait()
        assert (await answer_to(transport, post(server.url))).outcome is Outcome.DELIVERED
    assert server.connections == 2


async def test_an_endpoint_that_sends_tickets_without_an_end_is_cut_off_and_its_neighbours_go_on(
    authority: Authority, tmp_path: Path
) -> None:
    with flooding(authority.server("127.0.0.1"), tmp_path, records=500) as port:
        async with hostile(answering(OK)) as server, sending(roots=authority.file) as transport:
            flooded = sent(transport, post(f"https://127.0.0.1:{port}/"))
            while not flooded.done():
                assert (await answer_to(transport, post(server.url))).outcome is Outcome.DELIVERED
            assert flooded.result().error == "TLS failed: more protocol overhead than the data needs"
