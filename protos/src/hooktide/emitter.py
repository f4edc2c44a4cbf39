"""Emitter: publishes events to Hooktide; each emit returns once its event is durable.

[emit → backlog → stream] → ingest service
"""

import asyncio
import os
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, cast

import grpc

from hooktide._backlog import Backlog
from hooktide._errors import EmitError, EmitterClosed
from hooktide._events import Extension, JsonDefault, JsonEncoder, build_event, frame_of
from hooktide._receipt import Receipt
from hooktide._stream import PublishCall, Stream
from hooktide._tls import trusting
from hooktide.event.v1.event_pb2 import CloudEvent
from hooktide.ingest.v1.ingest_pb2 import PublishStreamRequest, PublishStreamResponse

_METHOD = "/hooktide.ingest.v1.IngestService/PublishStream"
_EXPIRY_GRAIN_S = 0.05
_CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    # The service permits these pings; the client notices a dead connection within 40 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # The stream has a backoff of its own.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class Emitter:
    """A connection to the ingest service, for any number of concurrent callers of one event loop.

    ::

        async with hooktide.Emitter("localhost:50052", key="hkt_…") as emitter:
            receipt = await emitter.emit(type="order.created", source="/shop", data={"id": 7})

    Keep one for the life of the process. Concurrent emits share one stream and are sent together. If the connection breaks, the emitter
    reconnects and sends unacknowledged events again, which stores nothing twice. Events that one caller emits one after another are
    appended in that order. Of events that are emitted at the same time, an event that the service had to postpone may come after later
    ones.
    """

    def __init__(  # noqa: PLR0913 - one parameter for each option
        self,
        target: str,
        *,
        key: str,
        ca: "str | os.PathLike[str] | bytes | None" = None,
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float = 60.0,
        close_timeout: float = 10.0,
        backlog_events_max: int = 10_000,
        backlog_bytes_max: int = 64 * 1024 * 1024,
        default: JsonDefault | None = None,
    ) -> None:
        """Take the service's `target` (``host:port``, ``dns:///name:port``, ``unix:path``) and an API key of the role emitter.

        `ca`, a PEM file or its bytes, turns TLS on and names the trusted authorities. `credentials` turn TLS on too
        (`grpc.ssl_channel_credentials()` trusts the public authorities), and may show a certificate. `timeout` is how long an emit may take
        in all, with every retry, in seconds. `close_timeout` is how long leaving ``async with`` waits for events in flight, in seconds.
        If the backlog of unacknowledged events is at its limit in events or bytes, `emit` waits. `default` is called, as by `json.dumps`,
        for every value within `data` that JSON cannot express, and returns a value that JSON can. The emitter connects on the first emit.
        """
        if timeout <= 0 or backlog_events_max < 1 or backlog_bytes_max < 1:
            message = "timeout, backlog_events_max and backlog_bytes_max must be above 0"
            raise ValueError(message)
        self._target = target
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._credentials = trusting(ca, credentials)
        self._timeout_s = timeout
        self._close_timeout_s = close_timeout
        self._json_encoder = JsonEncoder(default)
        self._backlog = Backlog(events_max=backlog_events_max, bytes_max=backlog_bytes_max)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._works = False

    async def emit(  # noqa: PLR0913 - the attributes of a CloudEvent
        self,
        *,
        type: str,  # noqa: A002 - CloudEvents' name
        source: str,
        subject: str | None = None,
        data: object = None,
        id: str | None = None,  # noqa: A002 - CloudEvents' name
        time: datetime | None = None,
        datacontenttype: str | None = None,
        partitionkey: str | None = None,
        audience: str | None = None,
        extensions: Mapping[str, Extension] | None = None,
    ) -> Receipt:
        """Publish one event and return its receipt once it is durable.

        `id` (default: a new time-ordered UUID) and `source` together identify the event: if exactly the same event is emitted again within
        24 hours, it is stored once. `time` (with a zone) defaults to now. `data` is sent as JSON; bytes, and text with a `datacontenttype`
        other than JSON, are sent as they are. None means no payload. In JSON, datetime, date, time, UUID and Decimal become text, and the
        emitter's `default` may convert further types.
        Events of one `partitionkey` (default: of one source and subject) stay in order. `audience`, a consumer's id, restricts the event to
        that consumer. `extensions` are further attributes; their names consist of lower-case letters and digits.

        Raises `InvalidEvent`, `EventConflict`, `NotAuthorized`, `LogFull`, `Unavailable`, `EmitterClosed`.
        If an emit is cancelled, its event may or may not be stored.
        """
        event = build_event(
            type=type,
            source=source,
            subject=subject,
            data=data,
            id=id,
            time=time,
            datacontenttype=datacontenttype,
            partitionkey=partitionkey,
            audience=audience,
            extensions=extensions,
            json_encoder=self._json_encoder,
        )
        return await self.emit_event(event)

    async def emit_event(self, event: CloudEvent) -> Receipt:
        """Publish a complete CloudEvent unchanged; otherwise as `emit`. Later changes to `event` have no effect."""
        frame = frame_of(event)
        try:
            return await self._publish(frame)
        except EmitError as error:
            error.event = PublishStreamRequest.FromString(frame).events[0]
            raise

    async def aclose(self) -> None:
        """Accept no more events, wait at most `close_timeout` for events in flight, and disconnect.

        If an event is not acknowledged by then, its emit raises `EmitterClosed`. May be called again.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())  # owned: ends within `close_timeout`
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.aclose()

    async def _publish(self, frame: bytes) -> Receipt:
        if not self._works:
            self._start()
        deadline = cast("asyncio.AbstractEventLoop", self._loop).time() + self._timeout_s
        pending = await self._backlog.admit(frame, deadline, self._timeout_s)
        try:
            return await pending.answer
        finally:
            self._backlog.release(pending)

    def _start(self) -> None:
        if self._closing is not None:
            raise EmitterClosed("the emitter is closed, and the event was not sent; make a new emitter")
        if self._task is not None:
            raise EmitterClosed(
                "the emitter has stopped with its event loop or because of an error, and the event was not sent; make a new emitter"
            )
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="hooktide-emitter")  # owned: `aclose` ends it
        self._task.add_done_callback(self._on_end)
        self._works = True

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._works = False
        defect = None if task.cancelled() else task.exception()
        if defect is None:
            self._backlog.fail_all(_closed)
        else:
            self._backlog.fail_all(lambda sent: _broken(defect, outcome_unknown=sent))

    async def _run(self) -> None:
        options = _CHANNEL_OPTIONS
        channel = (
            grpc.aio.insecure_channel(self._target, options=options)
            if self._credentials is None
            else grpc.aio.secure_channel(self._target, self._credentials, options=options)
        )
        async with channel:
            publish: grpc.aio.StreamStreamMultiCallable[object, PublishStreamResponse] = channel.stream_stream(
                _METHOD, None, PublishStreamResponse.FromString
            )
            stream = Stream(self._backlog, lambda: cast("PublishCall", publish(None, metadata=self._metadata)), timeout_s=self._timeout_s)
            async with asyncio.TaskGroup() as group:
                group.create_task(stream.run())
                group.create_task(self._expire_overdue())

    async def _expire_overdue(self) -> None:
        # All events have the same timeout, so they become overdue in the order in which they came.
        loop = asyncio.get_running_loop()
        while True:
            now, next_s = loop.time(), self._timeout_s
            for pending in self._backlog.pending:
                if pending.deadline > now:
                    next_s = pending.deadline - now
                    break
                pending.expire(self._timeout_s, self._backlog.problem)
            await asyncio.sleep(max(next_s, _EXPIRY_GRAIN_S))

    async def _close(self) -> None:
        self._works = False
        try:
            async with asyncio.timeout(self._close_timeout_s):
                await self._backlog.emptied()
        except TimeoutError:
            self._backlog.fail_all(_closed)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


def _closed(outcome_unknown: bool) -> EmitterClosed:  # noqa: FBT001 - called by position only
    fate = "the event was sent and may or may not be stored" if outcome_unknown else "the event was not sent"
    message = f"the emitter was closed before the event was acknowledged; {fate}: emit it again with a new emitter"
    return EmitterClosed(message, outcome_unknown=outcome_unknown)


def _broken(defect: BaseException, *, outcome_unknown: bool) -> EmitError:
    message = "an internal error stopped the emitter; make a new emitter and emit the event again"
    error = EmitError(message, reason="INTERNAL", retryable=True, outcome_unknown=outcome_unknown)
    error.__cause__ = defect
    return error
