"""gRPC: TLS of the gRPC listeners and of the calls between services."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from prometheus_client import REGISTRY

from services.runtime.configuration.reload import Reloadable
from services.runtime.configuration.settings import IngestSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.rpc.access import Access
from services.runtime.rpc.channel_and_server import Server, open_channel
from services.runtime.tls import client_tls, server_tls
from tests.tls.authority import Authority, Issued
from tests.tls.handshake import negotiated

METHOD = "/test.v1.Echo/Say"
STREAM = "/test.v1.Echo/Repeat"
AWAY = grpc.StatusCode.UNAVAILABLE


class Side:
    """The settings of one process, and a reload as SIGHUP would cause it."""

    def __init__(self, **files: Path) -> None:
        environ = {f"HOOKTIDE_{name}": str(path) for name, path in files.items()}
        self.reloadable = Reloadable(read_settings(IngestSettings, environ), lambda: read_settings(IngestSettings, environ))


@contextlib.asynccontextmanager
async def listening(side: Side) -> AsyncIterator[str]:
    async def say(request: bytes, _context: object) -> bytes:
        return request

    async def repeat(requests: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    server = Server({METHOD: Access.PUBLIC, STREAM: Access.PUBLIC}, "hts_a-token-for-this-test-only")
    methods: dict[str, Any] = {"Say": grpc.unary_unary_rpc_method_handler(say), "Repeat": grpc.stream_stream_rpc_method_handler(repeat)}
    server.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.v1.Echo", methods),))
    try:
        yield await server.start("127.0.0.1:0", server_tls(side.reloadable, "ingest"))
    finally:
        await server.stop(0.1)


@contextlib.asynccontextmanager
async def calling(target: str, side: Side | None) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(target, tls=None if side is None else client_tls(side.reloadable)) as channel:
        yield channel


async def said(channel: grpc.aio.Channel) -> bytes | grpc.StatusCode:
    try:
        answer: bytes = await cast("Any", channel.unary_unary(METHOD))(b"hello", timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return answer


async def say(target: str, side: Side | None) -> bytes | grpc.StatusCode:
    async with calling(target, side) as channel:
        return await said(channel)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "theirs")


def server_files(issued: Issued) -> dict[str, Path]:
    return {"INGEST_TLS_CERT_FILE": issued.cert, "INGEST_TLS_KEY_FILE": issued.key}


def client_files(authority: Authority, issued: Issued | None = None) -> dict[str, Path]:
    shown = {} if issued is None else {"TLS_CERT_FILE": issued.cert, "TLS_KEY_FILE": issued.key}
    return {"TLS_CA_FILE": authority.file, **shown}


async def test_a_call_needs_tls_and_the_right_authority(ours: Authority, theirs: Authority) -> None:
    async with listening(Side(**server_files(ours.issue()))) as target:
        assert await say(target, Side(**client_files(ours))) == b"hello"
        assert await say(target, Side(**client_files(theirs))) == AWAY
        assert await say(target, None) == AWAY


async def test_a_certificate_for_another_name_is_refused(ours: Authority) -> None:
    async with listening(Side(**server_files(ours.issue()))) as target:
        assert await say(target.replace("127.0.0.1", "127.0.0.2"), Side(**client_files(ours))) == AWAY


async def test_with_an_authority_for_clients_each_must_show_a_certificate_of_it(ours: Authority, theirs: Authority) -> None:
    async with listening(Side(**server_files(ours.issue()), INGEST_TLS_CLIENT_CA_FILE=ours.file)) as target:
        assert await say(target, Side(**client_files(ours, ours.issue()))) == b"hello"
        assert await say(target, Side(**client_files(ours, theirs.issue()))) == AWAY
        assert await say(target, Side(**client_files(ours))) == AWAY


@pytest.mark.parametrize(
    ("version", "answer"),
    [(ssl.TLSVersion.TLSv1_1, None), (ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")],
)
async def test_nothing_below_tls_1_2_is_spoken(ours: Authority, version: ssl.TLSVersion, answer: str | None) -> None:
    async with listening(Side(**server_files(ours.issue()))) as target:
        assert await negotiated(target, version, "h2") == answer


async def test_a_unix_socket_is_plain_whatever_is_set(ours: Authority, tmp_path: Path) -> None:
    side = Side(**server_files(ours.issue()))
    server = Server({METHOD: Access.PUBLIC}, "hts_a-token-for-this-test-only")
    target = await server.start(f"unix:{tmp_path}/s", server_tls(side.reloadable, "ingest"))
    assert await say(target, Side(**client_files(ours))) == grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0)


async def test_a_reload_takes_new_certificates_and_authorities_on_both_sides(ours: Authority, theirs: Authority) -> None:
    """A stream under way stays; new calls use new connections, which trust only the new authority."""
    shown, showing = ours.issue(), ours.issue()
    server, client = Side(**server_files(shown), INGEST_TLS_CLIENT_CA_FILE=ours.file), Side(**client_files(ours, showing))
    async with listening(server) as target, calling(target, client) as channel:
        stream: Any = channel.stream_stream(STREAM)()
        await stream.write(b"before")
        assert await stream.read() == b"before"
        old_client = Side(**client_files(ours, ours.issue()))
        async with calling(target, old_client) as old_channel:
            shown.replace_by(theirs.issue())
            showing.replace_by(theirs.issue())
            ours.file.write_bytes(theirs.file.read_bytes())
            assert await server.reloadable.reload()
            assert await said(old_channel) == AWAY
        assert await client.reloadable.reload()
        assert await said(channel) == b"hello"
        await stream.write(b"after")
        assert await stream.read() == b"after"
        stream.cancel()


async def test_a_reload_of_files_that_cannot_work_keeps_what_was_there(ours: Authority, theirs: Authority) -> None:
    shown = ours.issue()
    server = Side(**server_files(shown))
    async with listening(server) as target:
        expires = REGISTRY.get_sample_value("hooktide_tls_certificate_expires_seconds", {"setting": "HOOKTIDE_INGEST_TLS_CERT_FILE"})
        assert expires is not None
        shown.cert.write_bytes(theirs.issue().cert.read_bytes())
        assert not await server.reloadable.reload()
        assert REGISTRY.get_sample_value("hooktide_last_reload_ok") == 0
        assert await say(target, Side(**client_files(ours))) == b"hello"
        shown.replace_by(theirs.issue())
        assert await server.reloadable.reload()
        assert REGISTRY.get_sample_value("hooktide_last_reload_ok") == 1
        assert await say(target, Side(**client_files(theirs))) == b"hello"
