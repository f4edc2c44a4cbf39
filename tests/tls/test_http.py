"""HTTP: TLS of the REST API's listener."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from gateway.listener import HttpLimits, listening
from services.runtime.configuration.reload import Reloadable
from services.runtime.configuration.settings import GatewaySettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.http.connection_limits import ConnectionLimits
from services.runtime.http.listener import Gate
from services.runtime.tls import server_tls
from tests.tls.authority import Authority, Issued
from tests.tls.handshake import negotiated


class Listener:
    """A listener with TLS, its address, and a reload as SIGHUP would cause it."""

    def __init__(self, issued: Issued, clients: Authority | None) -> None:
        environ = {"HOOKTIDE_GATEWAY_TLS_CERT_FILE": str(issued.cert), "HOOKTIDE_GATEWAY_TLS_KEY_FILE": str(issued.key)}
        if clients is not None:
            environ["HOOKTIDE_GATEWAY_TLS_CLIENT_CA_FILE"] = str(clients.file)
        self.reloadable = Reloadable(read_settings(GatewaySettings, environ), lambda: read_settings(GatewaySettings, environ))
        self.target = ""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen for as long as the body runs."""

        async def answer(_request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(text="hello")

        async with listening(
            answer, "127.0.0.1:0", HttpLimits(), Gate(ConnectionLimits()), server_tls(self.reloadable, "gateway")
        ) as self.target:
            yield


def trusting(authority: Authority, shown: Issued | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    if shown is not None:
        context.load_cert_chain(shown.cert, shown.key)
    return context


async def got(target: str, context: ssl.SSLContext, path: str = "/") -> str | None:
    """Return the text of the answer, None if the connection fails."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"https://{target}{path}", ssl=context) as response:
                return await response.text()
        except aiohttp.ClientError:
            return None


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "theirs")


async def test_only_whoever_trusts_its_authority_talks_to_it_and_only_by_tls(ours: Authority, theirs: Authority) -> None:
    listener = Listener(ours.issue(), None)
    async with listener.listening(), aiohttp.ClientSession() as plain:
        assert await got(listener.target, trusting(ours)) == "hello"
        assert await got(listener.target, trusting(theirs)) is None
        with pytest.raises(aiohttp.ClientError):
            await plain.get(f"http://{listener.target}/")


@pytest.mark.parametrize(
    ("version", "answer"),
    [(ssl.TLSVersion.TLSv1_1, None), (ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")],
)
async def test_nothing_below_tls_1_2_is_spoken(ours: Authority, version: ssl.TLSVersion, answer: str | None) -> None:
    listener = Listener(ours.issue(), None)
    async with listener.listening():
        assert await negotiated(listener.target, version, "http/1.1") == answer


async def test_with_an_authority_for_clients_each_must_show_a_certificate_of_it(ours: Authority, theirs: Authority) -> None:
    listener = Listener(ours.issue(), ours)
    async with listener.listening():
        assert await got(listener.target, trusting(ours, ours.issue())) == "hello"
        assert await got(listener.target, trusting(ours, theirs.issue())) is None
        assert await got(listener.target, trusting(ours)) is None


async def test_a_reload_takes_a_new_certificate_and_new_authorities_of_clients(ours: Authority, theirs: Authority) -> None:
    shown, old, new = ours.issue(), ours.issue(), theirs.issue()
    listener = Listener(shown, ours)
    async with listener.listening(), aiohttp.ClientSession() as kept:
        assert await (await kept.get(f"https://{listener.target}/", ssl=trusting(ours, old))).text() == "hello"
        shown.replace_by(theirs.issue())
        ours_file_before = ours.file.read_bytes()
        ours.file.write_bytes(theirs.file.read_bytes())
        assert await listener.reloadable.reload()
        assert await got(listener.target, trusting(theirs, new)) == "hello"
        assert await got(listener.target, trusting(theirs, old)) is None
        ours.file.write_bytes(b"none")
        assert not await listener.reloadable.reload()
        assert await got(listener.target, trusting(theirs, new)) == "hello"
        ours.file.write_bytes(ours_file_before)
        assert await listener.reloadable.reload()
        assert await got(listener.target, trusting(theirs, old)) == "hello"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_from_before_a_reload_is_no_way_around_the_new_authorities(
    ours: Authority, theirs: Authority, version: ssl.TLSVersion
) -> None:
    shown = ours.issue()
    listener = Listener(shown, ours)
    context = trusting(ours, ours.issue())
    context.load_verify_locations(theirs.file)
    context.minimum_version = context.maximum_version = version
    async with listener.listening():
        session = await asyncio.to_thread(resumed, listener.target, context, None)
        shown.replace_by(theirs.issue())
        ours.file.write_bytes(theirs.file.read_bytes())
        assert await listener.reloadable.reload()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(resumed, listener.target, context, session)


def resumed(target: str, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """Make a request with the TLS session of an earlier connection; return this connection's session."""
    host, _, port = target.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname=host, session=session) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
            raise ConnectionError("closed without an answer")
        return connection.session
