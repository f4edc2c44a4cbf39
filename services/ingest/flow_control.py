"""Intake: how much of all streams together is read and not yet in the log.

emitter → [intake] → accept → event log → …

Law 1: what is under way is bounded in events and bytes, however many streams there are; a stream that waits for room is
not read, so that HTTP/2 holds its emitter back. At most one message a stream, read when there was room, comes on top.
Law 2: streams take turns, the one that has waited longest first.
"""

import asyncio
from collections import deque

EVENTS_MAX = 20_000
# What waits is what a slow disk has yet to write: the more, the longer until an answer, and emitters ask again after 20 s.
BYTES_MAX = 16 * 1024 * 1024


class Intake:
    """The room that all streams share."""

    def __init__(self, *, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.events = 0
        """How many events are under way."""
        self.bytes = 0
        """How many bytes their messages have."""

    async def room(self) -> None:
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
            elif not turn.cancelled():  # its turn had come, and is another's now
                self._wake()
            raise

    def take(self, events: int, size_bytes: int) -> None:
        """Count a message that was read."""
        self.events += events
        self.bytes += size_bytes

    def give_back(self, events: int, size_bytes: int) -> None:
        """Count a message no more, since it is in the log or refused."""
        self.events -= events
        self.bytes -= size_bytes
        self._wake()

    @property
    def _full(self) -> bool:
        return self.events >= self._events_max or self.bytes >= self._bytes_max

    def _wake(self) -> None:
        """Let one stream read on; all of them where half the room is free, since those woken may have nothing to read."""
        if self._full:
            return
        roomy = self.events * 2 < self._events_max and self.bytes * 2 < self._bytes_max
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                if not roomy:
                    return
