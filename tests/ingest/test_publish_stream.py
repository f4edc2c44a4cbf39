import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
from hooktide.error.v1 import error_pb2
from hooktide.event.v1.event_pb2 import CloudEvent
from hooktide.ingest.v1 import ingest_pb2

from services.ingest.server import MESSAGES_UNDER_WAY_MAX
from services.runtime.errors import Reason, failure_from_rpc
from services.runtime.rpc.channel_and_server import open_channel
from tests.ingest.world import TIMEOUT_S, World, answer, ended, message, positions, rest
from tests.support.events import cloud_event
from tests.support.waiting import until

RawStream = grpc.aio.StreamStreamCall[bytes, bytes]


def serving() -> list[str]:
    """Return the names of the tasks that serve publishing streams."""
    return [str(task.get_coro()) for task in asyncio.all_tasks() if "IngestServer" in str(task.get_coro())]


def raw_stream(channel: grpc.aio.Channel, world: World, *, timeout_s: float = TIMEOUT_S) -> RawStream:
    """Open a stream whose messages are bytes."""
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        "/hooktide.ingest.v1.IngestService/PublishStream", None, None
    )
    call: RawStream = method(None, metadata=world.metadata(), timeout=timeout_s)
    return call


async def own_ids(world: World) -> list[str]:
    """Return the emitters' ids of the events in the log, in its order."""
    return [CloudEvent.FromString(record.event).id for record in await world.records()]


def weighty(name: str) -> ingest_pb2.PublishStreamRequest:
    """Return a large message with a large answer: each event is refused, and the refusal shows what is wrong."""
    event = cloud_event(name, data="x" * 5000)
    event.attributes["\U0001f6d2" * 64].ce_string = "x"
    return message(*[event] * 100)


async def test_messages_are_answered_one_by_one_in_order(world: World) -> None:
    async with world.stream() as call:
        for number in range(5):
            await call.write(message(*(cloud_event() for _ in range(number + 1))))
            assert len((await answer(call)).results) == number + 1
        await call.done_writing()
        assert not await rest(call)
        assert await ended(call) is grpc.StatusCode.OK


async def test_many_messages_under_way_keep_their_order(world: World) -> None:
    """More messages than ingest takes at once are written before the first answer is read."""
    count = 10 * MESSAGES_UNDER_WAY_MAX
    async with world.stream() as call:
        for number in range(count):
            await call.write(message(*(cloud_event(f"{number}-{index}") for index in range(number % 3 + 1))))
        await call.done_writing()
        seen = [positions((await answer(call)).results) for _ in range(count)]
        assert not await rest(call)
    assert [len(group) for group in seen] == [number % 3 + 1 for number in range(count)]
    flat = [position for group in seen for position in group]
    assert flat == list(range(1, len(flat) + 1))
    assert await own_ids(world) == [f"{number}-{index}" for number in range(count) for index in range(number % 3 + 1)]


async def test_events_enter_the_log_in_the_order_of_their_messages(world: World) -> None:
    """A message may wait until the registry has answered about its type; later messages wait behind it although they need no answer."""
    await world.publish(cloud_event(type_="known"))
    for attempt in range(5):
        async with world.stream() as call:
            await call.write(message(cloud_event(type_="known")))
            await answer(call)
            requests = [message(cloud_event(type_=f"new.{attempt}.{number}", partitionkey="k")) for number in range(5)]
            requests += [message(cloud_event(type_="known", partitionkey="k")) for _ in range(5)]
            for request in requests:
                await call.write(request)
            seen = [positions((await answer(call)).results)[0] for _ in requests]
        assert seen == sorted(seen)


async def test_refused_events_are_results_and_the_stream_goes_on(world: World) -> None:
    async with world.stream() as call:
        await call.write(message(cloud_event(time="x"), cloud_event("1")))
        await call.write(message(cloud_event("1", data='{"id":2}')))
        await call.write(message(cloud_event("1")))
        first, second, third = [list((await answer(call)).results) for _ in range(3)]
        assert first[0].error.field == "attributes.time"
        assert second[0].error.reason == error_pb2.ERROR_REASON_EVENT_ID_CONFLICT
        assert third[0].receipt.event_id == first[1].receipt.event_id
        assert third[0].receipt.duplicate


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_message_that_is_wrong_as_a_whole_ends_the_stream(world: World, count: int) -> None:
    """Earlier messages are answered; later messages do not enter the log."""
    async with world.stream() as call:
        await call.write(message(cloud_event("before")))
        await call.write(message(*(cloud_event() for _ in range(count))))
        for number in range(5):
            await call.write(message(cloud_event(f"after-{number}")))
        assert positions((await answer(call)).results) == [1]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert failure_from_rpc(caught.value).reason is Reason.BATCH_TOO_LARGE
    await until(lambda: not serving())
    assert await own_ids(world) == ["before"]


async def test_a_message_that_is_no_message_ends_the_stream(world: World) -> None:
    call = raw_stream(world.channel, world)
    await call.write(message(cloud_event()).SerializeToString())
    async with asyncio.timeout(TIMEOUT_S):
        response = await call.read()
        assert isinstance(response, bytes)
        assert len(ingest_pb2.PublishStreamResponse.FromString(response).results) == 1
        await call.write(b"\xff\xff\xff")
        code = await call.code()
    assert code is not grpc.StatusCode.OK
    await until(lambda: not serving())


async def test_a_message_beyond_what_the_transport_takes_ends_the_stream(world: World) -> None:
    async with grpc.aio.insecure_channel(world.addresses.listen, options=[("grpc.max_send_message_length", -1)]) as channel:
        call = raw_stream(channel, world)
        await call.write(message(cloud_event()).SerializeToString())
        assert await call.read()
        await call.write(message(*(cloud_event(data=f'"{"x" * 200_000}"') for _ in range(50))).SerializeToString())
        assert await ended(call) is grpc.StatusCode.RESOURCE_EXHAUSTED
    await until(lambda: not serving())


async def test_a_client_that_does_not_read_is_held_back(world: World) -> None:
    """The server stops reading; others are served meanwhile; when the client reads, the stream goes on where it stood."""
    count = 250
    async with world.stream() as call:

        async def write_all() -> None:
            for number in range(count):
                await call.write(weighty(f"{number}"))
            await call.done_writing()

        writing = asyncio.ensure_future(write_all())
        await asyncio.wait([writing], timeout=2)
        async with world.stream() as other:
            for _ in range(20):
                await other.write(message(cloud_event()))
                await answer(other)
        await world.publish(cloud_event())
        assert not writing.done()
        answers = await rest(call)
        await writing
    assert [len(response.results) for response in answers] == [100] * count
    assert await ended(call) is grpc.StatusCode.OK


async def test_a_client_that_neither_reads_nor_goes_on_leaves_nothing_behind(world: World) -> None:
    async with world.stream() as call:

        async def write_for_ever() -> None:
            while True:
                await call.write(weighty("x"))

        writing = asyncio.ensure_future(write_for_ever())
        await asyncio.wait([writing], timeout=1)
        writing.cancel()
        await asyncio.wait([writing])
        assert serving()
    await until(lambda: not serving())


@pytest.mark.parametrize("how", ["cancelled", "connection closed", "deadline"])
async def test_a_client_that_disappears_leaves_nothing_behind(world: World, how: str) -> None:
    """No task stays, and no place among the pending events; the client may publish its events again."""
    events = [[cloud_event() for _ in range(50)] for _ in range(40)]
    async with open_channel(world.addresses.listen) as channel:
        call = raw_stream(channel, world, timeout_s=0.5 if how == "deadline" else TIMEOUT_S)
        await call.write(message(*events[0]).SerializeToString())
        await call.read()
        await until(lambda: bool(serving()))
        writing = asyncio.ensure_future(write_some(call, events[1:]))
        await asyncio.sleep(0)
        if how == "cancelled":
            call.cancel()
        elif how == "deadline":
            await call.code()
        else:
            await channel.close(None)
        await asyncio.wait([writing])
    await until(lambda: not serving())
    for batch in events:
        positions(await world.publish_batch(batch))
    assert len(await world.records()) == 2000


async def write_some(call: RawStream, batches: list[list[CloudEvent]]) -> None:
    """Write until no more can be written."""
    with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError, asyncio.CancelledError):
        for batch in batches:
            await call.write(message(*batch).SerializeToString())


async def test_an_iterator_of_requests_is_served_as_well(world: World) -> None:
    """Several streams run at once, and their events do not mix."""

    async def one(name: str) -> list[int]:
        async def requests() -> AsyncIterator[ingest_pb2.PublishStreamRequest]:
            for number in range(50):
                yield message(cloud_event(f"{name}-{number}", subject=name))

        call = world.ingest.PublishStream(requests(), metadata=world.metadata(), timeout=TIMEOUT_S)
        return [positions(response.results)[0] async for response in call]

    seen = await asyncio.gather(*(one(name) for name in "abcdefgh"))
    for of_stream in seen:
        assert len(of_stream) == 50
        assert of_stream == sorted(of_stream)
    assert sorted(position for of_stream in seen for position in of_stream) == list(range(1, 401))
