"""Endless tickets: a TLS 1.3 endpoint that sends session tickets without end, many in a record, and never an answer."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

# RFC 8446, section 4.6.1: lifetime, age_add, a nonce of one byte, a ticket of one byte, no extensions.
_TICKET_BODY = struct.pack(">IIBBHBH", 7200, 0, 1, 0, 1, 0x78, 0)
_TICKET = b"\x04" + len(_TICKET_BODY).to_bytes(3) + _TICKET_BODY
_RECORD_BYTES_MAX = 16_384


@contextlib.contextmanager
def flooding(context: ssl.SSLContext, folder: Path, records: int) -> Iterator[int]:
    """Serve one connection in a thread; yield the port."""
    secrets = folder / "secrets"
    context.keylog_filename = str(secrets)
    context.num_tickets = 0
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError), listening.accept()[0] as raw, context.wrap_socket(raw, server_side=True) as tls:
                tls.recv(65536)
                line = next(line for line in secrets.read_text().splitlines() if line.startswith("SERVER_TRAFFIC_SECRET_0"))
                socket.socket.sendall(tls, _sealed(bytes.fromhex(line.split()[2]), records))
                socket.socket.recv(tls, 1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.close()
            thread.join()


def _sealed(secret: bytes, records: int) -> bytes:
    """Return records full of tickets (RFC 8446, section 5.2), encrypted as the first ones after the server's handshake."""
    cipher, base = AESGCM(_expanded(secret, b"key", 32)), int.from_bytes(_expanded(secret, b"iv", 12))
    inner = _TICKET * (_RECORD_BYTES_MAX // len(_TICKET)) + b"\x16"
    header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2)
    return b"".join(header + cipher.encrypt((base ^ number).to_bytes(12), inner, header) for number in range(records))


def _expanded(secret: bytes, label: bytes, size: int) -> bytes:
    named = b"tls13 " + label
    return HKDFExpand(SHA384(), size, size.to_bytes(2) + bytes([len(named)]) + named + b"\x00").derive(secret)
