"""Backlog: the events that were emitted and not yet answered, bounded in count and bytes.

emit → [backlog] → stream → service

Law 1: an `emit` call holds a place from its admission until it returns, however it returns. So the bound limits the callers, and a
cancelled call leaves nothing behind.
Law 2: events leave in the order in which they came; events that are put back go to the front.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from hooktide._errors import EmitError, Refusal, Unavailable
from hooktide._receipt import Receipt

MESSAGE_EVENTS_MAX = 500
MESSAGE_BYTES_MAX = 1024 * 1024


class Pending:
    """One event that awaits its answer."""

    __slots__ = ("answer", "deadline", "frame", "refusal", "sendings")

    def __init__(self, frame: bytes, answer: asyncio.Future[Receipt], deadline: float) -> None:
        self.frame = frame
        self.answer = answer
        self.deadline = deadline
        # How many times it was sent since the service last refused it.
        self.sendings = 0
        self.refusal: Refusal | None = None

    @property
    def sent(self) -> bool:
        """Whether it was sent; its outcome is then unknown until the answer."""
        return self.sendings > 0

    def expire(self, timeout_s: float, problem: str) -> None:
        """Fail the event because no answer came in time. `problem` says why the service was last unreachable, or is empty."""
        if self.answer.done():
            return
        if self.refusal is not None and not self.sent:
            self.answer.set_exception(self.refusal.error())
            return
        waited = f"the service did not answer within {timeout_s:g} s{f' ({problem})' if problem else ''}"
        message = (
            f"{waited}: the event was sent and may or may not be stored; emit the same event again, and the service stores it only once"
            if self.sent
            else f"{waited}: the event was not sent; check that the target is right and that the service runs"
        )
        self.answer.set_exception(Unavailable(message, reason="DEADLINE_EXCEEDED", retryable=True, outcome_unknown=self.sent))


class Backlog:
    """The emitter's queue of events, for use within one event loop.

    `changed` is set whenever there may be something new to send.
    """

    def __init__(self, *, events_max: int, bytes_max: int) -> None:
        self.changed = asyncio.Event()
        self.pending: dict[Pending, None] = {}
        # Why the service was last unreachable; empty while it answers.
        self.problem = ""
        self._queue: OrderedDict[Pending, None] = OrderedDict()
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._waiting: deque[tuple[Pending, asyncio.Future[None]]] = deque()  # bounded: one entry for each caller
        self._empty = asyncio.Event()
        self._empty.set()

    async def admit(self, frame: bytes, deadline: float, timeout_s: float) -> Pending:
        """Queue an event, as soon as there is room and all callers that waited longer have been served.

        Raises `Unavailable` at the deadline, which is a time of the event loop's clock.
        """
        pending = Pending(frame, asyncio.get_running_loop().create_future(), deadline)
        if self._waiting or not self._fits(pending):
            await self._room(pending, timeout_s)
        else:
            self._enter(pending)
        return pending

    def release(self, pending: Pending) -> None:
        """Give an event's place back."""
        del self.pending[pending]
        self._queue.pop(pending, None)
        self._bytes -= len(pending.frame)
        self._admit_waiting()

    def take(self) -> list[Pending]:
        """Remove and return the events of the next message; an empty list if none waits."""
        message: list[Pending] = []
        size = 0
        while self._queue and len(message) < MESSAGE_EVENTS_MAX:
            pending, _ = self._queue.popitem(last=False)
            if pending.answer.done():
                continue
            size += len(pending.frame)
            if message and size > MESSAGE_BYTES_MAX:
                self._queue[pending] = None
                self._queue.move_to_end(pending, last=False)
                break
            pending.sendings += 1
            message.append(pending)
        return message

    def put_back(self, events: Iterable[Pending]) -> None:
        """Put events back, in their order, in front of all waiting events; leave out events that were answered meanwhile."""
        for pending in reversed(list(events)):
            if pending in self.pending and not pending.answer.done():
                self._queue[pending] = None
                self._queue.move_to_end(pending, last=False)
        self.changed.set()

    @property
    def has_unsent(self) -> bool:
        """Whether anything waits to be sent."""
        return bool(self._queue)

    def fail_all(self, error: Callable[[bool], EmitError]) -> None:
        """Fail all calls that hold or wait for a place with `error`; its argument is whether the event was sent."""
        for pending in self.pending:
            if not pending.answer.done():
                pending.answer.set_exception(error(pending.sent))
        for _, admitted in self._waiting:
            if not admitted.done():
                admitted.set_exception(error(False))  # noqa: FBT003 - an event that still waits was not sent

    async def emptied(self) -> None:
        """Wait until no call holds or waits for a place."""
        await self._empty.wait()

    def _fits(self, pending: Pending) -> bool:
        # An event larger than the limit of bytes is admitted alone; otherwise it would wait for ever.
        size = len(pending.frame)
        return not self.pending or (len(self.pending) < self._events_max and self._bytes + size <= self._bytes_max)

    def _enter(self, pending: Pending) -> None:
        self.pending[pending] = None
        self._queue[pending] = None
        self._bytes += len(pending.frame)
        self._empty.clear()
        self.changed.set()

    def _admit_waiting(self) -> None:
        while self._waiting:
            pending, admitted = self._waiting[0]
            if not admitted.done():
                if not self._fits(pending):
                    return
                self._enter(pending)
                admitted.set_result(None)
            self._waiting.popleft()
        if not self.pending:
            self._empty.set()

    async def _room(self, pending: Pending, timeout_s: float) -> None:
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((pending, admitted))
        self._empty.clear()
        try:
            async with asyncio.timeout_at(pending.deadline):
                await admitted
        except BaseException as error:
            if pending in self.pending:
                self.release(pending)
            else:
                admitted.cancel()
                self._admit_waiting()
            if isinstance(error, TimeoutError):
                message = (
                    f"the emitter's backlog stayed full for {timeout_s:g} s, and the event was not sent; the service is unavailable, "
                    "or events are emitted faster than it accepts them"
                )
                raise Unavailable(message, reason="DEADLINE_EXCEEDED", retryable=True) from None
            raise
