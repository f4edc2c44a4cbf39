import asyncio
import re
from pathlib import Path

import grpc
import pytest
from hooktide import emitter

from services.runtime.rpc import renewed_channel
from services.runtime.rpc.channel_arguments import Connecting, channel_arguments, server_arguments

_SETTINGS, _PING, _GO_AWAY = 4, 6, 7


def names() -> list[str]:
    """Return the name of every option that the services give to gRPC."""
    options = [*server_arguments(Connecting()), *channel_arguments(["a.B/C"]), *emitter._CHANNEL_OPTIONS]  # noqa: SLF001 - ours
    return sorted({name for name, _ in options})


@pytest.fixture(scope="module")
def library() -> bytes:
    """The installed library's binary, which contains the name of each option that it knows."""
    (binary,) = (Path(grpc.__file__).parent / "_cython").glob("cygrpc.*.so")
    return binary.read_bytes()


@pytest.mark.parametrize("name", names())
def test_the_library_knows_every_option(name: str, library: bytes) -> None:
    assert re.search(rb"(?<![a-z_.])" + re.escape(name.encode()) + rb"(?![a-z_.])", library)


def test_an_option_that_does_not_exist_would_be_noticed(library: bytes) -> None:
    assert b"grpc.http2.min_recv_ping_interval_without_data_ms" not in library


def test_a_channel_with_an_old_certificate_outlives_the_connections_that_a_server_keeps() -> None:
    options = dict(server_arguments(Connecting()))
    assert options["grpc.max_connection_age_ms"] + options["grpc.max_connection_age_grace_ms"] < renewed_channel._OLD_KEPT_S * 1000  # noqa: SLF001 - ours


async def test_an_idle_connection_may_ping_as_often_as_our_channels_do() -> None:
    """The test runs at a hundredth of the real intervals. Without the permission, gRPC closes a connection at the third ping."""
    permitted = Connecting().pings_permitted_s
    assert all(value >= 1000 * permitted for name, value in channel_arguments([]) if name == "grpc.keepalive_time_ms")
    assert all(value >= 1000 * permitted for name, value in emitter._CHANNEL_OPTIONS if name == "grpc.keepalive_time_ms")  # noqa: SLF001 - ours
    server = grpc.aio.server(options=server_arguments(Connecting(pings_permitted_s=permitted / 100)))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0]))
    async with asyncio.timeout(20):
        for _ in range(5):
            writer.write(bytes([0, 0, 8, _PING, 0, 0, 0, 0, 0, *range(8)]))
            while (kind := await _next_kind(reader)) != _PING:
                assert kind != _GO_AWAY
            await asyncio.sleep(permitted / 80)
    writer.close()
    await server.stop(None)


async def _next_kind(reader: asyncio.StreamReader) -> int:
    """Read one HTTP/2 frame and return its type (RFC 9113)."""
    head = await reader.readexactly(9)
    await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head[3]
