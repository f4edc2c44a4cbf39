"""Flow control: how much all streams together may have read and not yet appended to the log.

emitter → server → [flow_control] → publish → event log

Law 1: messages under way are bounded in events and bytes, however many streams there are. A stream that waits for room is not read,
so that HTTP/2 applies backpressure to its emitter. Each stream may exceed the bound by one message that it began to read while there
was room.
Law 2: streams take turns; the stream that has waited longest goes first.
"""

import asyncio
from collections import deque

EVENTS_MAX = 20_000
# A slow disk still has to write these bytes: more of them delay the answers, and emitters send again after 20 s.
BYTES_MAX = 16 * 1024 * 1024


class StreamFlowControl:
    """The room that all streams share for messages under way."""

    def __init__(self, *, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._waiting: deque[asyncio.Future[None]] = deque()  # bounded: one entry for each stream
        self.events = 0
        """How many events are under way."""
        self.bytes = 0
        """How many bytes the messages of these events have."""

    async def wait_for_room(self) -> None:
        """Wait until another message may be read."""
        if not self._full and not self._waiting:
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled():  # this stream's turn had come; pass it on
                self._wake()
            raise

    def add(self, events: int, size_bytes: int) -> None:
        """Add a message that was read to what is under way."""
        self.events += events
        self.bytes += size_bytes

    def remove(self, events: int, size_bytes: int) -> None:
        """Subtract a message that is in the log or refused."""
        self.events -= events
        self.bytes -= size_bytes
        self._wake()

    @property
    def _full(self) -> bool:
        return self.events >= self._events_max or self.bytes >= self._bytes_max

    def _wake(self) -> None:
        """Wake one waiting stream. If half the room is free, wake all of them, since a woken stream may have nothing to read."""
        if self._full:
            return
        roomy = self.events * 2 < self._events_max and self.bytes * 2 < self._bytes_max
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                if not roomy:
                    return
