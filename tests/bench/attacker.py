"""Attacker: hostile clients of one kind, from an address of their own, in a process of low priority on the load's core.

Reads a `Job` as JSON from standard input, begins at once, and prints `Done` as JSON when its time is over.
It speaks gRPC by hand, since no library sends what these clients send.
"""

import asyncio
import gzip
import json
import os
import secrets
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import uvloop

from services.runtime.api_key import new_key
from tests.support.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GO_AWAY,
    HEADERS,
    PREFACE,
    RESET,
    SETTINGS,
    frame,
    next_frame,
    request_head,
)

ADDRESS = "127.0.0.2"
"""The address of all hostile clients; honest clients use 127.0.0.1."""
_NICE = 15
_EVENTS = 4_000_000
_STREAMS = 100
_METADATA_BYTES = 6_000
_SLOW_S = 1.0
_PAUSE_S = 0.01
_ANSWER_WITHIN_S = 20.0


class Job(NamedTuple):
    """The attack to make."""

    kind: str
    """A name in `KINDS`."""
    host: str
    port: int
    """The port of the attacked service."""
    connections: int
    for_s: float


class Done(NamedTuple):
    """What the hostile clients counted."""

    opened: int
    """The number of accepted connections."""
    calls: int
    """The number of calls or requests begun."""


class Count:
    """The counters for `Done`."""

    def __init__(self) -> None:
        self.opened = 0
        self.calls = 0


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Client = Callable[[Connection, Count], Awaitable[None]]


async def silent(connection: Connection, _count: Count) -> None:
    """Send nothing until the service closes the connection."""
    await connection[0].read()


async def dropped(_connection: Connection, _count: Count) -> None:
    """Close the connection as soon as it is open."""


async def slow_headers(connection: Connection, count: Count) -> None:
    """Send the head of a request byte by byte."""
    count.calls += 1
    for byte in b"GET /v1/whoami HTTP/1.1\r\nHost: gateway\r\nX-Slow: " + b"a" * 4000:
        connection[1].write(bytes([byte]))
        await connection[1].drain()
        await asyncio.sleep(_SLOW_S)


async def slow_body(connection: Connection, count: Count) -> None:
    """Send the body of a request byte by byte."""
    count.calls += 1
    connection[1].write(_request("POST", "/v1/subscriptions", f"content-type: application/json\r\ncontent-length: 5000\r\n{_key_line()}"))
    for _ in range(5000):
        connection[1].write(b" ")
        await connection[1].drain()
        await asyncio.sleep(_SLOW_S)


async def wrong_keys(connection: Connection, count: Count) -> None:
    """Guess API keys of the right form, one after the other."""
    reader, writer = connection
    while True:
        count.calls += 1
        writer.write(_request("GET", "/v1/whoami", _key_line()))
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(size.partition(b":")[2]))


async def wrong_keys_grpc(connection: Connection, count: Count) -> None:
    """Guess emitters' keys of the right form over gRPC, one after the other."""
    await _calls(connection, count, "Publish", lambda: {"authorization": f"Bearer {new_key()}"}, b"\0\0\0\0\0")


async def gzip_bombs(connection: Connection, count: Count) -> None:
    """Publish millions of empty events without a key, 8 KB of gzip a message."""
    await _calls(connection, count, "PublishBatch", lambda: {"grpc-encoding": "gzip"}, _bomb())


async def plain_bombs(connection: Connection, count: Count) -> None:
    """Publish millions of empty events without a key, uncompressed, as far as the service reads them."""
    message = b"\x0a\0" * _EVENTS
    await _calls(connection, count, "PublishBatch", dict, struct.pack(">BI", 0, len(message)) + message)


async def idle_streams(connection: Connection, count: Count) -> None:
    """Open many calls with large metadata and never send a message."""
    reader, writer = connection
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
    for number in range(_STREAMS):
        count.calls += 1
        more = {"authorization": f"Bearer {new_key()}", "x-filler": secrets.token_hex(_METADATA_BYTES // 2)}
        writer.write(frame(HEADERS, END_HEADERS, 2 * number + 1, request_head("PublishStream", more)))
        await writer.drain()
    while True:
        await next_frame(reader, writer)


GATEWAY: Mapping[str, Client] = {
    "silent connections to the gateway": silent,
    "connections to the gateway, closed at once": dropped,
    "heads sent byte by byte": slow_headers,
    "bodies sent byte by byte": slow_body,
    "wrong keys over REST": wrong_keys,
}
INGEST: Mapping[str, Client] = {
    "silent connections to ingest": silent,
    "compressed bombs to ingest": gzip_bombs,
    "plain bombs to ingest": plain_bombs,
    "wrong keys over gRPC": wrong_keys_grpc,
    "calls that send nothing": idle_streams,
}
KINDS: Mapping[str, Client] = {**GATEWAY, **INGEST}


def _request(method: str, path: str, lines: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: gateway\r\n{lines}\r\n".encode()


def _key_line() -> str:
    return f"authorization: Bearer {new_key()}\r\n"


async def _calls(connection: Connection, count: Count, method: str, metadata: Callable[[], dict[str, str]], message: bytes) -> None:
    """Make calls on one HTTP/2 connection, one after the other, each with one message."""
    reader, writer = connection
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
    for number in range(1, 1 << 30, 2):
        count.calls += 1
        writer.write(frame(HEADERS, END_HEADERS, number, request_head(method, metadata())))
        # Send as much as is allowed before the service enlarges the window; a caller that waits for the window is refused before it
        # opens.
        part, end = message[:60_000], len(message) <= 60_000
        for start in range(0, len(part), 16_000):
            last = start + 16_000 >= len(part)
            writer.write(frame(DATA, END_STREAM if end and last else 0, number, part[start : start + 16_000]))
        await writer.drain()
        while True:
            kind, flags, stream = await next_frame(reader, writer)
            if kind == GO_AWAY:
                return
            if stream == number and (kind == RESET or (kind == HEADERS and flags & END_STREAM)):
                break


def _bomb() -> bytes:
    packed = gzip.compress(b"\x0a\0" * _EVENTS, mtime=0)
    return struct.pack(">BI", 1, len(packed)) + packed


async def attack(job: Job) -> Done:
    """Keep `connections` hostile connections up for `for_s` seconds; reopen each that ends."""
    count, client, ends_at = Count(), KINDS[job.kind], time.monotonic() + job.for_s

    async def keep_attacking() -> None:
        while True:
            try:
                async with asyncio.timeout(_ANSWER_WITHIN_S):
                    connection = await asyncio.open_connection(job.host, job.port, local_addr=(ADDRESS, 0))
            except (OSError, TimeoutError):
                await asyncio.sleep(_PAUSE_S)
                continue
            count.opened += 1
            try:
                await client(connection, count)
            except (OSError, EOFError, StopIteration, asyncio.LimitOverrunError):
                pass
            finally:
                connection[1].transport.abort()
            await asyncio.sleep(_PAUSE_S)

    attackers = [asyncio.ensure_future(keep_attacking()) for _ in range(job.connections)]
    try:
        await asyncio.sleep(ends_at - time.monotonic())
    finally:
        for each in attackers:
            each.cancel()
        await asyncio.gather(*attackers, return_exceptions=True)
    return Done(count.opened, count.calls)


def main(argv: Sequence[str] = ()) -> None:
    """Do the job that standard input describes."""
    del argv
    given = json.load(sys.stdin)
    os.sched_setaffinity(0, {given.pop("core")})
    os.nice(_NICE)
    sys.stdout.write(json.dumps(uvloop.run(attack(Job(**given)))))


if __name__ == "__main__":
    main()
