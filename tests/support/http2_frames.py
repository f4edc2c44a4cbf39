"""HTTP/2 frames: writes and reads single frames of gRPC calls, for clients that send what no library sends (RFC 9113)."""

import asyncio
from collections.abc import Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GO_AWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1


async def next_frame(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, int, int]:
    """Read one frame, and acknowledge it if HTTP/2 (RFC 9113) requires that; return its type, flags and stream."""
    head = await reader.readexactly(9)
    size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
    body = await reader.readexactly(size)
    if kind == SETTINGS and not flags & ACK:
        writer.write(frame(SETTINGS, ACK, 0, b""))
    if kind == PING and not flags & ACK:
        writer.write(frame(PING, ACK, 0, body))
    return kind, flags, int.from_bytes(head[5:], "big")


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Return the bytes of a frame."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def request_head(method: str, metadata: Mapping[str, str]) -> bytes:
    """Return the header block (RFC 7541) of a call to the ingest service, each field literal and not indexed."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/hooktide.ingest.v1.IngestService/{method}",
        ":authority": "ingest",
        "content-type": "application/grpc",
        "te": "trailers",
        **metadata,
    }
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())


def _text(text: str) -> bytes:
    raw, prefix = text.encode(), b""
    if len(raw) < 127:
        prefix = bytes([len(raw)])
    else:
        rest, prefix = len(raw) - 127, b"\x7f"
        while rest >= 128:
            prefix += bytes([rest % 128 + 128])
            rest //= 128
        prefix += bytes([rest])
    return prefix + raw
