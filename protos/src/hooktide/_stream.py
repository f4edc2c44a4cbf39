"""Stream: sends the backlog to the ingest service over one acknowledged stream at a time, while the emitter lives.

emit → backlog → [stream] → service

Law 1: events that are sent and not answered when a stream ends are sent again, in order, ahead of the rest. Publishing is idempotent, so
a repetition is harmless; a lost event is not.
Law 2: a refusal that a retry cannot change goes to the callers that it concerns at once; all other callers wait for a retry.
Law 3: no event is sent before the service has accepted the key, so that a refused key leaves no event in doubt. If the service
neither accepts nor refuses the key, the events are sent after `ACCEPTANCE_WAIT_S`, or after half of the emitter's timeout if shorter.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Never, Protocol

import grpc
from google.rpc import code_pb2

from hooktide._backlog import Backlog, Pending
from hooktide._errors import Refusal, call_refusal, event_refusal
from hooktide._receipt import Receipt
from hooktide.ingest.v1.ingest_pb2 import PublishStreamResponse

MESSAGES_IN_FLIGHT_MAX = 8
ANSWER_TIMEOUT_S = 20.0
ACCEPTANCE_WAIT_S = 1.0
ACCEPTED_KEY = "hooktide-stream"
"""The name in the initial metadata by which the service says that it has accepted the key of a stream."""
PAUSE_FIRST_S = 0.05
PAUSE_MAX_S = 5.0
_UNAVAILABLE = code_pb2.UNAVAILABLE


class PublishCall(Protocol):
    """The part of grpc.aio's call that this file uses; requests are already bytes."""

    async def wait_for_connection(self) -> None:
        """Return once there is a connection."""
        ...

    async def initial_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return the metadata that the service sends ahead of its first answer; empty if the stream ends without it."""
        ...

    async def write(self, request: bytes) -> None:
        """Send one message."""
        ...

    async def read(self) -> PublishStreamResponse | object:
        """Return the next answer, or EOF."""
        ...

    def cancel(self) -> bool:
        """End the stream."""
        ...

    def done(self) -> bool:
        """Return whether the stream has ended."""
        ...

    async def code(self) -> grpc.StatusCode:
        """Return the status code with which the stream ended."""
        ...

    async def details(self) -> str | None:
        """Return the sentence with which the stream ended."""
        ...

    async def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return the metadata with which the stream ended."""
        ...


class _Ended(Exception):  # noqa: N818 - no error: streams end
    """The stream has ended: for the reason in `why` or, if that is None, for the reason in its status."""

    def __init__(self, why: str | None = None) -> None:
        super().__init__(why)
        self.why = why


class Stream:
    """Sends the events of the backlog, passes the service's answers to their callers, and reconnects."""

    def __init__(self, backlog: Backlog, open_call: Callable[[], PublishCall], *, timeout_s: float) -> None:
        self._backlog = backlog
        self._open_call = open_call
        self._answer_timeout_s = min(ANSWER_TIMEOUT_S, timeout_s)
        # Otherwise the first events would be overdue before they are sent.
        self._acceptance_wait_s = min(ACCEPTANCE_WAIT_S, timeout_s / 2)
        self._in_flight: deque[list[Pending]] = deque()  # bounded: by the backlog
        self._sent = asyncio.Event()
        self._failures = 0

    async def run(self) -> Never:
        """Carry events until cancelled."""
        while True:
            while not self._backlog.has_unsent:
                self._backlog.changed.clear()
                await self._backlog.changed.wait()
            refusal = await self._converse()
            self._backlog.problem = refusal.message
            unanswered = list(self._in_flight)
            self._in_flight.clear()
            if refusal.concerns_all:
                if len(unanswered) == 1:
                    # Answers come in order, so the refusal is of this only message, and its events are not stored.
                    for pending in unanswered[0]:
                        pending.sendings -= 1
                _fail(list(self._backlog.pending), refusal)
                unanswered = []
            elif not refusal.passes:
                _fail(unanswered[0] if unanswered else list(self._backlog.pending), refusal)
            self._backlog.put_back(pending for message in unanswered for pending in message)
            await asyncio.sleep(self._pause_s(refusal))

    def _pause_s(self, refusal: Refusal) -> float:
        """Return how long to wait before the next stream.

        The first wait after an answer is zero, unless the refusal demands one. Then it doubles with each failure in a row, with jitter.
        """
        pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** min(self._failures - 1, 16)) if self._failures else 0.0
        # After a refusal that a retry cannot change, no caller waits for a retry, so the backoff begins anew.
        self._failures = self._failures + 1 if refusal.passes else 1
        return max(refusal.retry_after_s or 0.0, pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter is no secret

    async def _converse(self) -> Refusal:
        """Use one stream until it ends, and return why it ended."""
        call = self._open_call()
        try:
            why: str | None = None
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_until_ended(self._send(call)))
                    group.create_task(_until_ended(self._receive(call)))
            except* _Ended as ended:
                why = next((half.why for half in ended.exceptions if isinstance(half, _Ended) and half.why), None)
            # If a write loses the race against the stream's end, grpc.aio reports INTERNAL instead of the service's status. The events are
            # then sent again. The next stream shows the real status, since it sends one message alone and waits for the answer.
            if why is not None or not call.done():
                return Refusal("UNAVAILABLE", why or "The stream to the service broke.", _UNAVAILABLE)
            return call_refusal(await call.code(), await call.details() or "", await call.trailing_metadata() or ())
        finally:
            call.cancel()

    async def _send(self, call: PublishCall) -> None:
        backlog = self._backlog
        async with asyncio.timeout(self._answer_timeout_s):
            await call.wait_for_connection()
        await _accepted(call, self._acceptance_wait_s)
        while True:
            while not backlog.has_unsent or len(self._in_flight) >= (1 if self._failures else MESSAGES_IN_FLIGHT_MAX):
                backlog.changed.clear()
                await backlog.changed.wait()
            # One turn of the event loop, so that other calls that are about to emit join this message.
            await asyncio.sleep(0)
            message = backlog.take()
            if message:
                self._in_flight.append(message)
                self._sent.set()
                await call.write(b"".join([pending.frame for pending in message]))

    async def _receive(self, call: PublishCall) -> None:
        while True:
            while not self._in_flight:
                self._sent.clear()
                await self._sent.wait()
            async with asyncio.timeout(self._answer_timeout_s):
                response = await call.read()
            if not isinstance(response, PublishStreamResponse):
                return
            self._settle(response)
            self._failures = 0
            self._backlog.problem = ""
            self._backlog.changed.set()

    def _settle(self, response: PublishStreamResponse) -> None:
        message, results = self._in_flight[0], response.results
        if len(results) != len(message):
            why = f"The service answered {len(message)} events with {len(results)} results."
            raise _Ended(why)
        self._in_flight.popleft()
        resting: dict[float, list[Pending]] = {}
        for pending, result in zip(message, results, strict=True):
            answer = pending.answer
            if answer.done():
                continue
            if result.HasField("receipt"):
                receipt = result.receipt
                answer.set_result(Receipt(receipt.event_id, receipt.partition, receipt.position, receipt.duplicate))
                continue
            refusal = event_refusal(result.error)
            if refusal.retry_after_s is None:
                answer.set_exception(refusal.error())
            else:
                pending.sendings = 0
                pending.refusal = refusal
                resting.setdefault(refusal.retry_after_s, []).append(pending)
        for delay_s, events in resting.items():
            asyncio.get_running_loop().call_later(delay_s, self._backlog.put_back, events)


def _fail(events: list[Pending], refusal: Refusal) -> None:
    for pending in events:
        if not pending.answer.done():
            pending.answer.set_exception(refusal.error(outcome_unknown=pending.sent))


async def _accepted(call: PublishCall, within_s: float) -> None:
    """Return once the service has accepted the key, has ended the stream, or has said neither within a time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            if not any(key == ACCEPTED_KEY for key, _ in await call.initial_metadata() or ()):
                await call.code()


async def _until_ended(work: Awaitable[None]) -> Never:
    """Await the sending or the receiving half, and raise `_Ended` however the stream ends."""
    try:
        await work
    except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
        pass
    except TimeoutError:
        raise _Ended("The service did not answer in time.") from None
    except asyncio.CancelledError:
        # grpc.aio also raises this if the call was cancelled and this task was not.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
    raise _Ended
