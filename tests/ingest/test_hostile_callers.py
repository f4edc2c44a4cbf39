"""Hostile callers: what callers without a valid key may take from ingest, and that callers with one do not notice."""

import asyncio
import contextlib
import resource
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path

import grpc
import pytest
from hooktide.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from services.runtime.api_key import format_key, new_key
from services.runtime.authentication_throttle import FAILURES_BURST, FAILURES_PER_SECOND
from services.runtime.errors import Reason
from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from tests.ingest.world import TIMEOUT_S, World, ended, running_world
from tests.support.events import cloud_event, event_of_size
from tests.support.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    frame,
    next_frame,
    request_head,
)
from tests.support.system.registry import refused

EMPTY_EVENTS = b"\x0a\x00" * 2_000_000
MB = 1024 * 1024
_UNKNOWN_TYPE = 0xFA  # a type of frames that HTTP/2 lets a receiver ignore
METHODS = ("Publish", "PublishBatch", "PublishStream")


def resident_bytes() -> int:
    """Return the resident memory of this process, ingest's included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def bytes_call(world: World, method: str) -> grpc.aio.StreamStreamMultiCallable[bytes, bytes]:
    """Return a method's call that sends and receives any number of messages as bytes."""
    return world.channel.stream_stream(f"/hooktide.ingest.v1.IngestService/{method}", bytes, bytes)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("authorization", ["", f"Bearer {format_key(bytes(32))}", "Bearer hkt_guess"])
async def test_a_stranger_is_refused_before_a_message_is_read(world: World, method: str, authorization: str) -> None:
    """The client sends no message here, so a service that waited for one would wait for ever."""
    call = bytes_call(world, method)(metadata=(("authorization", authorization),) if authorization else ())
    assert await ended(call) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_message_is_not_taken_from_a_stranger(world: World) -> None:
    """Four messages of two million empty events each would take 900 MB if they were parsed."""
    before = resident_bytes()
    # A unary call reports the refusal even if that comes while the client still writes.
    publish = world.channel.unary_unary("/hooktide.ingest.v1.IngestService/PublishBatch", bytes, bytes)
    calls = [publish(EMPTY_EVENTS) for _ in range(4)]
    assert [await ended(call) for call in calls] == [grpc.StatusCode.UNAUTHENTICATED] * 4
    assert resident_bytes() - before < 100 * MB


async def refusal_of(call: Awaitable[object]) -> grpc.StatusCode | None:
    """Return the code with which a call is refused, None if it is not refused."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None


async def iter_of(messages: Sequence[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


@pytest.mark.parametrize("method", ["PublishBatch", "PublishStream"])
async def test_too_many_events_are_counted_and_not_parsed(world: World, method: str) -> None:
    before = resident_bytes()
    for _ in range(3):
        call = bytes_call(world, method)(iter_of([EMPTY_EVENTS]), metadata=world.metadata())
        failure = await refused(call.read())
        assert failure.reason is Reason.BATCH_TOO_LARGE
    assert resident_bytes() - before < 100 * MB


@pytest.mark.parametrize("method", METHODS)
async def test_what_is_not_protobuf_is_refused(world: World, method: str, capfd: pytest.CaptureFixture[str]) -> None:
    call = bytes_call(world, method)(iter_of([b"\x0a\xff\xff"]), metadata=world.metadata())
    assert (await refused(call.read())).reason is Reason.INVALID_ARGUMENT
    assert "Traceback" not in "".join(capfd.readouterr())


async def test_gzip_is_refused_with_a_right_key_as_well(world: World) -> None:
    request = ingest_pb2.PublishRequest(event=event_of_size(10_000))
    call = world.ingest.Publish(request, metadata=world.metadata(), timeout=TIMEOUT_S, compression=grpc.Compression.Gzip)
    assert await ended(call) is grpc.StatusCode.UNIMPLEMENTED
    await world.publish(cloud_event())


async def test_guesses_are_slowed_and_a_right_key_from_the_same_address_is_not(world: World) -> None:
    """The key is new to ingest, and comes while many refusals wait."""
    count, right = FAILURES_BURST + 10, (await world.key()).clear_text
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def guess(channel: grpc.aio.Channel) -> float:
        call = channel.stream_stream("/hooktide.ingest.v1.IngestService/Publish", bytes, bytes)
        assert await ended(call(metadata=service_metadata(new_key()))) is grpc.StatusCode.UNAUTHENTICATED
        return loop.time() - began

    channels = [open_channel(world.addresses.listen) for _ in range(count)]
    try:
        guesses = [asyncio.ensure_future(guess(channel)) for channel in channels]
        while sum(each.done() for each in guesses) < FAILURES_BURST:  # noqa: ASYNC110 - which of them is done first does not matter
            await asyncio.sleep(0)
        await world.publish(cloud_event(), key=right)
        assert not all(each.done() for each in guesses)
        answered_s = sorted([await each for each in guesses])
    finally:
        for channel in channels:
            await channel.close()
    assert answered_s[-1] >= 10 / FAILURES_PER_SECOND - 0.1


async def test_a_stranger_who_guesses_side_by_side_is_held_back(world: World) -> None:
    """While one refusal of a connection waits, ingest takes no call from that connection; other connections go on."""
    loop = asyncio.get_running_loop()
    async with open_channel(world.addresses.listen) as channel:
        guess = channel.stream_stream("/hooktide.ingest.v1.IngestService/Publish", bytes, bytes)
        began, count = loop.time(), FAILURES_BURST + 8
        guesses = [asyncio.ensure_future(ended(guess(metadata=service_metadata(new_key())))) for _ in range(count)]
        await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
        await world.publish(cloud_event())
        codes = await asyncio.gather(*guesses)
    assert set(codes) <= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE}
    assert loop.time() - began >= 1 / FAILURES_PER_SECOND


async def test_calls_of_one_address_are_bounded_but_not_those_of_services(tmp_path: Path) -> None:
    async with running_world(tmp_path, HOOKTIDE_GRPC_ADDRESS_CALLS_MAX="2") as world:
        async with world.stream() as first, world.stream() as second:
            for stream in (first, second):
                await stream.write(ingest_pb2.PublishStreamRequest(events=[cloud_event()]))
                await stream.read()
            failure = await refused(world.publish(cloud_event()))
            assert failure.reason is Reason.OVERLOADED
            assert failure.retry_after_s
            assert len(await asyncio.gather(*(world.records() for _ in range(5)))) == 5
        async with asyncio.timeout(TIMEOUT_S):
            while await refusal_of(world.publish(cloud_event())) is grpc.StatusCode.RESOURCE_EXHAUSTED:  # noqa: ASYNC110 - polled
                await asyncio.sleep(0)


async def test_a_client_that_makes_many_calls_at_once_is_refused_none(world: World) -> None:
    """The calls are more than one connection may have under way; gRPC holds the rest back."""
    async with open_channel(world.addresses.listen) as channel:
        publish = ingest_pb2_grpc.IngestServiceStub(channel).Publish
        requests = [ingest_pb2.PublishRequest(event=cloud_event()) for _ in range(600)]
        codes = await asyncio.gather(*(ended(publish(each, metadata=world.metadata(), timeout=TIMEOUT_S)) for each in requests))
    assert set(codes) == {grpc.StatusCode.OK}


async def test_connections_of_one_address_are_bounded_and_the_silent_ones_go(tmp_path: Path) -> None:
    """Sixty connections that send only their greeting; an emitter and a service of the same address keep their connections."""
    async with running_world(tmp_path, HOOKTIDE_GRPC_ADDRESS_CONNECTIONS_MAX="8") as world, asyncio.timeout(TIMEOUT_S):
        await world.publish(cloud_event())
        host, _, port = world.addresses.listen.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(60)]
        for _, writer in silent:
            writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
        ends = [asyncio.ensure_future(reader.read()) for reader, _ in silent]
        while sum(each.done() for each in ends) < 60 - 8:
            await asyncio.wait([each for each in ends if not each.done()], return_when=asyncio.FIRST_COMPLETED)
        await world.publish(cloud_event())
        assert len(await world.records()) == 2
        for (_, writer), end in zip(silent, ends, strict=True):
            writer.close()
            end.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells how much a connection has brought")
async def test_a_header_block_without_an_end_is_cut_off(world: World) -> None:
    """GRPC itself would keep the block, however long it becomes."""
    host, _, port = world.addresses.listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 0, 1, b"\0\x01a\x01b"))
    closed, piece, sent = asyncio.ensure_future(reader.read()), frame(CONTINUATION, 0, 1, b"\0\x01a\x01b" * 1000), 0
    async with asyncio.timeout(TIMEOUT_S):
        while not closed.done():
            writer.write(piece)
            sent += len(piece)
            await asyncio.wait([closed], timeout=0.001)
        await asyncio.wait([closed])
    writer.close()
    assert sent > 32 * 1024
    assert closed.exception() is None or isinstance(closed.exception(), ConnectionError)
    await world.publish(cloud_event())


async def test_a_silent_connection_is_closed_once_all_are_taken(tmp_path: Path) -> None:
    async with running_world(tmp_path, HOOKTIDE_GRPC_CONNECTIONS_MAX="20") as world, asyncio.timeout(TIMEOUT_S):
        host, _, port = world.addresses.listen.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        while await refusal_of(world.publish(cloud_event())) is grpc.StatusCode.UNAVAILABLE:  # noqa: ASYNC110 - polled
            await asyncio.sleep(0)
        for _, writer in silent:
            writer.close()


async def test_a_right_key_keeps_its_connection_while_its_message_arrives(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key counts before the message is complete. A connection that sends as much without a call is closed meanwhile."""
    monkeypatch.setattr("services.runtime.rpc.connection_limits._UNCOUNTED_S", 0.3)
    await world.publish(cloud_event())
    host, _, port = world.addresses.listen.rpartition(":")
    opening = PREFACE + frame(SETTINGS, 0, 0, b"")
    part = struct.pack(">BI", 0, 1_000_000) + bytes(15_000)
    async with asyncio.timeout(TIMEOUT_S):
        silent, silent_writer = await asyncio.open_connection(host, int(port))
        honest, honest_writer = await asyncio.open_connection(host, int(port))
        head = request_head("Publish", {key: str(value) for key, value in world.metadata()})
        honest_writer.write(opening + frame(HEADERS, END_HEADERS, 1, head))
        for body in (part, bytes(15_000)):
            honest_writer.write(frame(DATA, 0, 1, body))
            silent_writer.write((b"" if body is not part else opening) + frame(_UNKNOWN_TYPE, 0, 0, bytes(15_000)))
        await until_closed(silent, silent_writer)
        honest_writer.write(frame(PING, 0, 0, bytes(8)))
        while (await next_frame(honest, honest_writer))[:2] != (PING, ACK):
            pass
        silent_writer.close()
        honest_writer.close()


async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read until the service closes the connection."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            await next_frame(reader, writer)
