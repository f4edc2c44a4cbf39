"""Stream: how many messages are under way, over calls that the test answers itself."""

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from hooktide._backlog import Backlog
from hooktide._events import frame_of
from hooktide._stream import MESSAGES_IN_FLIGHT_MAX, Stream
from hooktide.ingest.v1.ingest_pb2 import PublishStreamRequest, PublishStreamResponse

from tests.support.events import cloud_event
from tests.support.waiting import until

EVENTS = 10_000


class Call:
    """A call of the stream's method; it breaks at its first write, or keeps what is written until the test answers."""

    def __init__(self, *, breaks: bool) -> None:
        self.breaks = breaks
        self.written: list[int] = []
        self.answers: asyncio.Queue[PublishStreamResponse] = asyncio.Queue()

    async def wait_for_connection(self) -> None:
        """Return at once."""

    async def initial_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """Accept the key."""
        return (("hooktide-stream", "accepted"),)

    async def write(self, request: bytes) -> None:
        """Note how many events a message has."""
        if self.breaks:
            raise asyncio.InvalidStateError
        self.written.append(len(PublishStreamRequest.FromString(request).events))

    async def read(self) -> PublishStreamResponse:
        """Return the next answer of the test."""
        return await self.answers.get()

    def answer(self, events: int) -> None:
        """Answer a message of so many events."""
        response = PublishStreamResponse()
        for _ in range(events):
            response.results.add().receipt.event_id = "evt_1"
        self.answers.put_nowait(response)

    def cancel(self) -> bool:
        """Do nothing."""
        return True

    def done(self) -> bool:
        """Never say that the stream has ended."""
        return False

    async def code(self) -> grpc.StatusCode:
        """Return any status."""
        return grpc.StatusCode.UNAVAILABLE

    async def details(self) -> str:
        """Return no sentence."""
        return ""

    async def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """Return no metadata."""
        return ()


async def test_after_a_broken_stream_one_message_goes_alone_until_it_is_answered() -> None:
    """A stream that ends while a write is under way does not show its status. Otherwise a refusal might never be seen."""
    backlog = Backlog(events_max=EVENTS, bytes_max=EVENTS * 1000)
    deadline = asyncio.get_running_loop().time() + 60
    for number in range(EVENTS):
        await backlog.admit(frame_of(cloud_event(str(number))), deadline, 60.0)
    calls = [Call(breaks=True), Call(breaks=False)]
    opened = iter(calls)

    def open_call() -> Any:
        return next(opened)

    running = asyncio.create_task(Stream(backlog, open_call, timeout_s=60.0).run())
    try:
        await until(lambda: bool(calls[1].written))
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(calls[1].written) == 1
        calls[1].answer(calls[1].written[0])
        await until(lambda: len(calls[1].written) == 1 + MESSAGES_IN_FLIGHT_MAX)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
