"""Sync: `SyncEmitter`, the emitter for code without an event loop, usable from any number of threads."""

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping
from datetime import datetime
from types import TracebackType
from typing import Self

import grpc

from hooktide._errors import EmitterClosed
from hooktide._events import Extension, JsonDefault
from hooktide._receipt import Receipt
from hooktide.emitter import Emitter
from hooktide.event.v1.event_pb2 import CloudEvent


class SyncEmitter:
    """`Emitter` with methods that block, for threads.

    ::

        with hooktide.SyncEmitter("localhost:50052", key="hkt_…") as emitter:
            receipt = emitter.emit(type="order.created", source="/shop", data={"id": 7})

    Keep one for the life of the process and share it among all threads: events that they emit at the same time are sent together. In a
    server that forks workers, make an emitter in each worker, after the fork. Parameters, results and errors are those of `Emitter`.
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
        """Take the parameters of `Emitter` and start a thread; the thread connects on the first emit."""
        self._emitter = Emitter(
            target,
            key=key,
            ca=ca,
            credentials=credentials,
            timeout=timeout,
            close_timeout=close_timeout,
            backlog_events_max=backlog_events_max,
            backlog_bytes_max=backlog_bytes_max,
            default=default,
        )
        # Held only while work is handed to the loop, so that no work is handed over after the loop's end.
        self._lock = threading.Lock()
        self._closed = False
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="hooktide-emitter", daemon=True)
        self._thread.start()

    def emit(  # noqa: PLR0913 - the attributes of a CloudEvent
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
        """Publish one event and return its receipt once it is durable; as `Emitter.emit`."""
        return self._wait(
            self._emitter.emit(
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
            )
        )

    def emit_event(self, event: CloudEvent) -> Receipt:
        """Publish a complete CloudEvent unchanged; as `Emitter.emit_event`."""
        return self._wait(self._emitter.emit_event(event))

    def close(self) -> None:
        """Accept no more events, wait for events in flight, and disconnect; as `Emitter.aclose`. May be called again."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _wait(self, emit: Coroutine[None, None, Receipt]) -> Receipt:
        with self._lock:
            if self._closed:
                emit.close()
                raise EmitterClosed("the emitter is closed, and the event was not sent; make a new emitter")
            receipt = asyncio.run_coroutine_threadsafe(emit, self._loop)
        try:
            return receipt.result()
        finally:
            # Has an effect only if the calling thread was interrupted.
            receipt.cancel()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_closed())

    async def _until_closed(self) -> None:
        await self._stop.wait()
        await self._emitter.aclose()
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        if under_way:
            await asyncio.wait(under_way)
