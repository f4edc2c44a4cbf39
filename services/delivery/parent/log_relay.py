"""Log relay: reads the head of the log once for all workers of this machine, and sends the same bytes to each of them.

ingest ─gRPC─▶ [log_relay: shared_batches] ─gRPC─▶ workers

Law 1: a follower gets every record after its place once, in the order of the log, whichever stream brings it.
Law 2: the log itself checks every follower's place: each begins with a stream of its own, and joins the shared stream where the two meet.
Law 3: a follower that is further behind than the shared batches reach back reads with a stream of its own. So no follower delays another.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, cast

import grpc
from hooktide.ingest.v1 import event_log_pb2 as pb
from prometheus_client import Counter, Gauge

from services.delivery.parent.shared_batches import BYTES_MAX, Batch, Place, SharedBatches, is_at_or_before, later
from services.eventlog.record import ShardPosition
from services.eventlog.wire import shard_position_from, shard_position_message
from services.runtime.background import until_one_ends
from services.runtime.errors import Failure, Reason, failure_from_rpc
from services.runtime.rpc.access import Access, ServiceToken
from services.runtime.rpc.channel_and_server import service_metadata

_SERVICE = "hooktide.ingest.v1.EventLogService"
RULES = {f"/{_SERVICE}/FollowLog": Access.SERVICE}
# How long the relay waits after a shared stream has ended before it begins another one.
_PAUSE_S = 1.0

Context = grpc.aio.ServicerContext[Any, Any]
_Upstream = grpc.aio.UnaryStreamCall[pb.FollowLogRequest, bytes]

_joined = Gauge("hooktide_relay_joined_workers", "Workers that read the shared stream of the log.")
_own_streams = Counter("hooktide_relay_own_streams_total", "Streams that a single worker has read, because it was starting or behind.")


class _Shared:
    """One stream of the log that several followers read."""

    def __init__(self, log_id: str, start: Place, bytes_max: int) -> None:
        self.log_id = log_id
        self.start = start
        self.batches = SharedBatches(start, bytes_max)
        self.has_ended = False
        self._grown = asyncio.Event()

    def add(self, message: bytes) -> None:
        """Add a message, and wake all who wait for one."""
        through = _through(self.batches.through, pb.FollowLogResponse.FromString(message))
        if through is not None:
            self.batches.add(through, message)
            self._wake()

    def end(self) -> None:
        """Let the followers go back to streams of their own."""
        self.has_ended = True
        self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def growth(self) -> None:
        """Wait for another message, or the end."""
        await self._grown.wait()


class LogRelay:
    """The streams of this machine's workers."""

    def __init__(self, channel: grpc.aio.Channel, service_token: ServiceToken, *, bytes_max: int = BYTES_MAX) -> None:
        """Read the log of the ingest service behind `channel`; keep at most `bytes_max` bytes of shared batches."""
        self._follow_log = cast(
            "grpc.aio.UnaryStreamMultiCallable[pb.FollowLogRequest, bytes]",
            channel.unary_stream(f"/{_SERVICE}/FollowLog", request_serializer=pb.FollowLogRequest.SerializeToString),
        )
        self._metadata = service_metadata(service_token)
        self._bytes_max = bytes_max
        self._shared: _Shared | None = None
        self._followers = 0
        self._not_before = 0.0
        self._changed = asyncio.Event()

    @property
    def is_reading(self) -> bool:
        """Whether there is a shared stream."""
        return self._shared is not None

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler that serves FollowLog; its answers are the log's own bytes."""
        follow: Any = grpc.unary_stream_rpc_method_handler(cast("Any", self._serve), pb.FollowLogRequest.FromString, None)
        return grpc.method_handlers_generic_handler(_SERVICE, {"FollowLog": follow})

    async def run(self) -> None:
        """Read the shared stream while there are followers; run this for as long as the relay serves."""
        while True:
            self._changed.clear()
            shared = self._shared
            if shared is None:
                await self._changed.wait()
                continue
            was_broken, _ = await until_one_ends(self._read(shared), self._until_left(shared))
            shared.end()
            if self._shared is shared:
                self._shared = None
                self._not_before = time.monotonic() + _PAUSE_S if was_broken else 0.0

    async def _until_left(self, shared: _Shared) -> None:
        while self._followers and self._shared is shared:
            self._changed.clear()
            await self._changed.wait()

    async def _read(self, shared: _Shared) -> None:
        request = pb.FollowLogRequest(after=[pb.ShardPosition(shard=each.shard, position=each.position) for each in shared.start.values()])
        # A broken stream ends the sharing. Each follower then learns from a stream of its own what is wrong.
        with contextlib.suppress(grpc.aio.AioRpcError, Failure):
            async with self._stream(request) as messages:
                first = pb.FollowLogResponse.FromString(await anext(messages))
                if first.log_id == shared.log_id:
                    async for message in messages:
                        shared.add(message)

    async def _serve(self, request: pb.FollowLogRequest, context: Context) -> AsyncIterator[bytes]:
        del context
        async with contextlib.aclosing(self.follow(request)) as messages:
            async for message in messages:
                yield message

    async def follow(self, request: pb.FollowLogRequest) -> AsyncGenerator[bytes, None]:
        """Yield the answers to a call of FollowLog, as the log would send them. Raises `Failure` when the stream ends."""
        follower = _Follower(request)
        with self._counted():
            while True:
                try:
                    async with self._stream(follower.request()) as messages:
                        _own_streams.inc()
                        first = await anext(messages)
                        if follower.begins(pb.FollowLogResponse.FromString(first)):
                            yield first
                        while (joined := self._join(follower)) is None:
                            message = await anext(messages)
                            follower.advance(message)
                            yield message
                except grpc.aio.AioRpcError as error:
                    raise failure_from_rpc(error) from error
                with _joined.track_inprogress():
                    async with contextlib.aclosing(self._shared_messages(*joined, follower)) as messages:
                        async for message in messages:
                            yield message

    async def _shared_messages(self, shared: _Shared, number: int, follower: "_Follower") -> AsyncGenerator[bytes, None]:
        """Yield messages of the shared stream until it ends, or until the follower has fallen behind it."""
        while True:
            if number == shared.batches.end:
                if shared.has_ended:
                    return
                await shared.growth()
                continue
            batch = shared.batches.at(number)
            if batch is None:
                return
            message = follower.rest_of(batch)
            number += 1
            if message:
                yield message

    def _join(self, follower: "_Follower") -> tuple[_Shared, int] | None:
        """Return the shared stream and with which of its batches the follower goes on; None while it needs a stream of its own."""
        shared = self._shared
        if shared is None or shared.has_ended or shared.log_id != follower.log_id:
            if time.monotonic() < self._not_before:
                return None
            # Begin at the head of the follower's own stream: the log has just told it.
            self._shared = shared = _Shared(follower.log_id, follower.heads, self._bytes_max)
            self._changed.set()
        number = shared.batches.begin(follower.place)
        return None if number is None else (shared, number)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._followers += 1
        self._changed.set()
        try:
            yield
        finally:
            self._followers -= 1
            self._changed.set()

    @contextlib.asynccontextmanager
    async def _stream(self, request: pb.FollowLogRequest) -> AsyncIterator[AsyncIterator[bytes]]:
        call = self._follow_log(request, metadata=self._metadata)
        try:
            yield _messages(call)
        finally:
            # grpc itself never cleans up an abandoned call.
            call.cancel()


class _Follower:
    """One worker's place in the log."""

    def __init__(self, request: pb.FollowLogRequest) -> None:
        self._request = request
        self.place: Place = {each.shard: shard_position_from(each) for each in request.after}
        self.log_id = ""
        self.heads: Place = {}
        self._retention_ns = 0

    def request(self) -> pb.FollowLogRequest:
        """Return the request with which the follower reads on by a stream of its own."""
        request = pb.FollowLogRequest()
        request.CopyFrom(self._request)
        if self.log_id:
            del request.after[:]
            request.after.extend(map(shard_position_message, self.place.values()))
            request.log_id = self.log_id
        return request

    def begins(self, first: pb.FollowLogResponse) -> bool:
        """Take the first message of a stream of its own. Return whether the follower gets it: only its very first one is sent.

        Raises `Failure` UNAVAILABLE if the log's retention has changed: the follower learns the new one when it follows again.
        """
        retention_ns, is_first = first.retention.ToNanoseconds(), not self.log_id
        if not is_first and retention_ns != self._retention_ns:
            raise Failure(Reason.UNAVAILABLE, "The log's retention has changed; follow the log again.", retry_after_s=0.1)
        self.log_id, self._retention_ns = first.log_id, retention_ns
        self.heads = {each.shard: shard_position_from(each) for each in first.heads}
        return is_first

    def advance(self, message: bytes) -> None:
        """Note that the follower gets a message of its own stream."""
        self.place = _through(self.place, pb.FollowLogResponse.FromString(message)) or self.place

    def rest_of(self, batch: Batch) -> bytes:
        """Return the records of a shared batch that the follower lacks, and note that it gets them; empty if it lacks none."""
        place = self.place
        if is_at_or_before(place, batch.after):
            self.place = batch.through
            return batch.message
        response = pb.FollowLogResponse.FromString(batch.message)
        rest = pb.FollowLogResponse(records=[each for each in response.records if each.position > place[each.shard].position])
        self.place = later(place, batch.through)
        return rest.SerializeToString()


async def _messages(call: _Upstream) -> AsyncIterator[bytes]:
    async for message in call:
        yield message
    raise Failure(Reason.UNAVAILABLE, "The event log has ended the stream; follow it again.", retry_after_s=0.1)


def _through(place: Place, response: pb.FollowLogResponse) -> Place | None:
    """Return the place after a message's records; None if it has none."""
    if not response.records:
        return None
    last = response.records[-1]
    through = dict(place)
    if len(place) > 1:
        for each in response.records:
            through[each.shard] = ShardPosition(each.shard, each.position, each.event_id)
    else:
        through[last.shard] = ShardPosition(last.shard, last.position, last.event_id)
    return through
