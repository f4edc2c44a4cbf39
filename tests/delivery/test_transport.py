import asyncio
import contextlib
import datetime as dt
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.delivery.model import Outcome
from services.delivery.transport import RESPONSE_BYTES_KEPT, RESPONSE_BYTES_MAX, Answer, Request
from services.delivery.transport_aiohttp import AiohttpTransport, open_aiohttp_transport
from services.egress.policy import EgressPolicy
from tests.delivery.receivers import answering, raw_server, receiver

LOOPBACK = EgressPolicy(allow=("http", "127.0.0.0/8"))
HEADERS = {"content-type": "application/cloudevents+json", "webhook-id": "evt_1", "user-agent": "Hooktide/0.1"}
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Names(AbstractResolver):
    """Names that lead where a test says."""

    def __init__(self, addresses: dict[str, list[str]] | None = None, error: Exception | None = None) -> None:
        self._addresses = addresses or {}
        self._error = error
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Return the addresses of a name."""
        del family
        self.asked.append(host)
        if self._error is not None:
            raise self._error
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST)
            for address in self._addresses[host]
        ]

    async def close(self) -> None:
        """Nothing is open."""


@contextlib.asynccontextmanager
async def opened(
    policy: EgressPolicy = LOOPBACK, *, timeout_s: float = 5.0, names: AbstractResolver | None = None
) -> AsyncIterator[AiohttpTransport]:
    async with open_aiohttp_transport(policy, timeout_s=timeout_s, connect_timeout_s=2.0, connections_max=8, names=names) as transport:
        yield transport


async def exchange(transport: AiohttpTransport, url: str, body: bytes = b"{}") -> Answer:
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    # A second answer would fail here.
    transport.send(Request(url, HEADERS, body), future.set_result)
    async with asyncio.timeout(20):
        return await future


async def test_a_webhook_leaves_as_it_was_made() -> None:
    """The body is sent byte for byte, with our headers and no others that ask for something."""
    async with receiver() as hooks, opened() as transport:
        answer = await exchange(transport, hooks.url("/a%2Fb?x=%20y"), b'{"a": 1}')
    assert answer == Answer(Outcome.DELIVERED, 200, "", b"", "")
    (hook,) = hooks.hooks
    assert hook.body == b'{"a": 1}'
    assert hook.headers == HEADERS | {"host": f"127.0.0.1:{hooks.port}", "content-length": "8"}


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_a_success(status: int) -> None:
    async with receiver() as hooks, opened() as transport:
        hooks.answer = lambda _hook: status
        assert (await exchange(transport, hooks.url())).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("status", [300, 400, 404, 410, 418, 429, 500, 503])
async def test_any_other_status_is_a_failure_that_is_told(status: int) -> None:
    async with receiver() as hooks, opened() as transport:
        hooks.answer = lambda _hook: status
        answer = await exchange(transport, hooks.url())
    assert answer[:3] == (Outcome.STATUS, status, f"the endpoint answered {status}")


async def test_the_beginning_of_a_failures_body_and_its_retry_after_are_kept() -> None:
    body = b"x" * 5000
    head = b"HTTP/1.1 503 No\r\nRetry-After:  120 \r\ncontent-length: 5000\r\n\r\n"
    async with raw_server(answering(head + body)) as server, opened() as transport:
        answer = await exchange(transport, server.url)
    assert answer == Answer(Outcome.STATUS, 503, "the endpoint answered 503", body[:RESPONSE_BYTES_KEPT], "120")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_not_followed(status: int) -> None:
    async with receiver() as elsewhere, opened() as transport:
        head = f"HTTP/1.1 {status} Moved\r\nlocation: {elsewhere.url()}\r\ncontent-length: 0\r\n\r\n"
        async with raw_server(answering(head.encode())) as server:
            answer = await exchange(transport, server.url)
    assert answer[:2] == (Outcome.STATUS, status)
    assert elsewhere.hooks == []


async def test_a_connection_is_used_again() -> None:
    async with raw_server(answering(OK)) as server, opened() as transport:
        for _ in range(3):
            assert (await exchange(transport, server.url)).outcome is Outcome.DELIVERED
        assert (server.connections, len(server.requests)) == (1, 3)


async def test_a_connection_that_the_endpoint_has_closed_meanwhile_is_not_used_again() -> None:
    """A stale keep-alive connection costs no attempt."""
    async with raw_server(answering(OK, close=True)) as server, opened() as transport:
        for number in range(1, 4):
            assert (await exchange(transport, server.url)).outcome is Outcome.DELIVERED
            assert server.connections == number


async def test_nobody_listens() -> None:
    """A refused connection says so, without the address."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with opened() as transport:
        answer = await exchange(transport, f"http://127.0.0.1:{port}/")
    assert answer == Answer(Outcome.CONNECT, 0, "no connection to the endpoint: Connection refused", b"", "")


async def test_none_of_a_names_addresses_takes_the_connection() -> None:
    """Several addresses fail like one, and are not told."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    names = Names({"consumer.example": ["127.0.0.1", "127.0.0.2"]})
    async with opened(names=names) as transport:
        answer = await exchange(transport, f"http://consumer.example:{port}/")
    assert answer.outcome is Outcome.CONNECT
    assert "127.0.0" not in answer.error


async def test_a_black_hole_ends_at_the_time_limit() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(silent) as server, opened(timeout_s=0.2) as transport:
        answer = await exchange(transport, server.url)
    assert answer == Answer(Outcome.TIMEOUT, 0, "no answer within the time limit", b"", "")


async def test_a_dripping_answer_ends_at_the_time_limit() -> None:
    """The limit is for all of it: one byte now and then does not prolong it."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b"x")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await reader.read()

    async with raw_server(drip) as server, opened(timeout_s=0.3) as transport:
        answer = await exchange(transport, server.url)
    assert answer.outcome is Outcome.TIMEOUT


async def test_a_reset_after_the_request_leaves_the_outcome_unknown() -> None:
    async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        raise ConnectionResetError

    async with raw_server(reset) as server, opened() as transport:
        answer = await exchange(transport, server.url)
    assert answer == Answer(Outcome.RESET, 0, "the connection broke before the answer was complete", b"", "")


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"])
async def test_an_answer_that_breaks_off_leaves_the_outcome_unknown(begun: bytes) -> None:
    async with raw_server(answering(begun, close=True)) as server, opened() as transport:
        assert (await exchange(transport, server.url)).outcome is Outcome.RESET


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200_000 + b"content-length: 0\r\n\r\n",
        b"HTTP/1.1 200 " + b"O" * 1_000_000 + b"\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=["another protocol", "no status", "negative length", "no chunk", "binary", "huge header", "many headers", "huge reason"],
)
async def test_an_answer_that_is_no_valid_http_is_a_failure(answer: bytes) -> None:
    async with raw_server(answering(answer, close=True)) as server, opened() as transport:
        got = await exchange(transport, server.url)
    assert got.outcome in {Outcome.PROTOCOL, Outcome.RESET}
    assert len(got.error) < 100


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3],
    ids=["101", "1xx only"],
)
async def test_an_interim_answer_is_no_success(answer: bytes) -> None:
    async with raw_server(answering(answer)) as server, opened(timeout_s=0.3) as transport:
        assert (await exchange(transport, server.url)).outcome is not Outcome.DELIVERED


async def test_an_interim_answer_before_the_real_one_is_passed_over() -> None:
    async with raw_server(answering(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK)) as server, opened() as transport:
        assert (await exchange(transport, server.url)).outcome is Outcome.DELIVERED


@pytest.mark.parametrize(("status", "outcome"), [(200, Outcome.DELIVERED), (500, Outcome.STATUS)])
async def test_of_an_endless_body_the_status_counts(status: int, outcome: Outcome) -> None:
    """Reading stops at the limit, and the connection is closed."""
    written = 0
    broken = asyncio.Event()

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(f"HTTP/1.1 {status} So\r\n\r\n".encode())
        try:
            while True:
                writer.write(b"x" * 4096)
                written += 4096
                await writer.drain()
        finally:
            broken.set()

    async with raw_server(endless) as server, opened() as transport:
        answer = await exchange(transport, server.url)
        async with asyncio.timeout(10):
            await broken.wait()
    assert (answer.outcome, answer.status) == (outcome, status)
    assert len(answer.body) <= RESPONSE_BYTES_KEPT
    # What the sockets of both sides hold comes on top.
    assert written < RESPONSE_BYTES_MAX + 16 * 1024 * 1024


async def test_a_compressed_answer_is_not_decompressed() -> None:
    """A bomb stays as small as it came."""
    bomb = gzip.compress(b"\x00" * 50_000_000)
    head = f"HTTP/1.1 500 No\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n".encode()
    async with raw_server(answering(head + bomb)) as server, opened() as transport:
        answer = await exchange(transport, server.url)
    assert answer == Answer(Outcome.STATUS, 500, "the endpoint answered 500", bomb[:RESPONSE_BYTES_KEPT], "")


@pytest.mark.parametrize(
    ("allow", "url", "told"),
    [
        ((), "http://127.0.0.1:{port}/", "must begin with https://"),
        (("http",), "http://127.0.0.1:{port}/", "loopback"),
        (("http",), "http://localhost:{port}/", "loopback"),
        (("http",), "http://[::1]:{port}/", "loopback"),
        (("http", "127.0.0.0/8"), "http://127.0.0.1:25/", "port 25"),
        (("http", "127.0.0.0/8"), "http://user@127.0.0.1:{port}/", "user name"),
        (("http", "127.0.0.0/8"), "http://0x7f000001:{port}/", "unusual notation"),
    ],
)
async def test_a_url_is_judged_at_each_attempt(allow: tuple[str, ...], url: str, told: str) -> None:
    """What the operator has forbidden since a subscription was made is not called any more."""
    async with receiver() as hooks, opened(EgressPolicy(allow=allow)) as transport:
        answer = await exchange(transport, url.format(port=hooks.port))
    assert answer.outcome is Outcome.BLOCKED
    assert told in answer.error
    assert hooks.hooks == []


@pytest.mark.parametrize("addresses", [["10.0.0.7"], ["127.0.0.1", "10.0.0.7"], ["169.254.169.254", "127.0.0.1"]])
async def test_a_name_that_leads_to_a_forbidden_address_is_blocked(addresses: list[str]) -> None:
    """One forbidden address among several is enough, and the answer names none of them."""
    names = Names({"consumer.example": addresses})
    async with receiver() as hooks, opened(names=names) as transport:
        answer = await exchange(transport, f"http://consumer.example:{hooks.port}/")
    assert answer.outcome is Outcome.BLOCKED
    assert not any(address in answer.error for address in addresses)
    assert (hooks.hooks, names.asked) == ([], ["consumer.example"])


async def test_a_name_that_leads_to_permitted_addresses_is_called() -> None:
    names = Names({"consumer.example": ["127.0.0.1"]})
    async with receiver() as hooks, opened(names=names) as transport:
        answer = await exchange(transport, f"http://consumer.example:{hooks.port}/")
    assert answer.outcome is Outcome.DELIVERED
    assert hooks.hooks[0].headers["host"] == f"consumer.example:{hooks.port}"


async def test_a_name_that_leads_nowhere_is_tried_again_later() -> None:
    names = Names(error=socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    async with opened(names=names) as transport:
        answer = await exchange(transport, "http://consumer.example/")
    assert answer == Answer(Outcome.DNS, 0, "the endpoint's name could not be resolved", b"", "")


async def test_a_fault_of_our_own_ends_one_attempt_and_not_the_service() -> None:
    """Whatever goes wrong in the middle of one request, the others go on."""
    names = Names(error=RuntimeError("a fault"))
    async with receiver() as hooks, opened(names=names) as transport:
        answer = await exchange(transport, "http://consumer.example/")
        assert (answer.outcome, answer.error) == (Outcome.PROTOCOL, "the request could not be made (RuntimeError)")
        assert (await exchange(transport, hooks.url())).outcome is Outcome.DELIVERED


def certificate(directory: Path) -> ssl.SSLContext:
    """Return what a server needs to show a certificate that nobody has signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(tz=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = directory / "endpoint.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    async with raw_server(answering(OK), tls=certificate(tmp_path)) as server, opened() as transport:
        answer = await exchange(transport, f"https://127.0.0.1:{server.port}/")
    assert answer == Answer(Outcome.TLS, 0, "TLS failed: self-signed certificate", b"", "")
    assert server.requests == []


async def test_an_endpoint_that_does_not_speak_tls_is_told_so() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server, opened() as transport:
        answer = await exchange(transport, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert answer.outcome is Outcome.TLS


async def test_send_returns_before_the_answer_is_handed_over() -> None:
    """Whoever sends is never called back while sending, even where the answer is known at once."""
    answers: list[Answer] = []
    async with opened(EgressPolicy()) as transport:
        transport.send(Request("http://127.0.0.1/", HEADERS, b""), answers.append)
        assert answers == []
    assert len(answers) == 1


async def test_at_the_end_what_is_under_way_is_cut_off_and_answered_once() -> None:
    """So is what had not even begun."""

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    answers: list[Answer] = []
    note: Callable[[Answer], None] = answers.append
    async with raw_server(silent) as server:
        async with opened() as transport:
            for _ in range(3):
                transport.send(Request(server.url, HEADERS, b""), note)
            await server.until(lambda: len(server.requests) == 3)
            transport.send(Request(server.url, HEADERS, b""), note)
        assert [answer.outcome for answer in answers] == [Outcome.RESET] * 4
