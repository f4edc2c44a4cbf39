"""TLS stream: how much of an endpoint's bytes one call reads."""

import contextlib
import fcntl
import select
import socket
import ssl
import struct
import termios
import time
from pathlib import Path

from services.delivery.transport.dialling import NOT_READY
from services.delivery.transport.tls_stream import TlsStream
from tests.support.certificates import Authority
from tests.support.webhook_receivers.endless_tickets import flooding

_PIECE_BYTES = 16 * 1024
_WITHIN_S = 20.0


def here(connected: socket.socket) -> int:
    """Return how many bytes have arrived and were not read."""
    (count,) = struct.unpack("i", fcntl.ioctl(connected, termios.FIONREAD, b"\0" * 4))
    return int(count)


def test_no_call_takes_more_than_a_piece_of_tickets_without_an_end(tmp_path: Path) -> None:
    """If OpenSSL read the socket itself, it would read on until there is data, and other requests would wait."""
    authority = Authority(tmp_path)
    context = ssl.create_default_context(cafile=str(authority.file))
    with flooding(authority.server("127.0.0.1"), tmp_path, records=100) as port, socket.create_connection(("127.0.0.1", port)) as connected:
        connected.setblocking(False)  # noqa: FBT003 - the standard library's signature
        secured = TlsStream(connected, context, "127.0.0.1", None)
        ends_at, stands = time.monotonic() + _WITHIN_S, False
        while not stands:
            assert time.monotonic() < ends_at
            with contextlib.suppress(*NOT_READY):
                secured.do_handshake()
                stands = True
            select.select([connected], [], [], 0.0 if stands else 1.0)
        assert secured.send(b"x") == 1
        while here(connected) < 4 * _PIECE_BYTES:
            assert time.monotonic() < ends_at
        for _ in range(3):
            before = here(connected)
            with contextlib.suppress(*NOT_READY):
                secured.recv_into(memoryview(bytearray(65536)))
            assert here(connected) >= before - _PIECE_BYTES
