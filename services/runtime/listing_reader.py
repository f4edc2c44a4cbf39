"""Listing reader: lists a database for people on a thread and a connection of its own, so that nothing else waits for listings.

Law 1: who asks much waits for himself: those who ask take turns, one query each.
Law 2: what waits is bounded, for each who asks and in all; a query is to bound what it examines (`Budget`).
"""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from services.runtime.database import connect
from services.runtime.errors import Failure, Reason

WAITING_MAX = 1000
WAITING_EACH_MAX = 32
PAGE_S = 0.05
_RETRY_S = 1.0

_Result = TypeVar("_Result")
_Arguments = ParamSpec("_Arguments")


class Budget:
    """For how long one query may examine rows; asked between steps, so that a slow disk makes a page smaller and not later."""

    def __init__(self, seconds: float = PAGE_S, now: Callable[[], float] = time.monotonic) -> None:
        """Begin now, by `now` in seconds."""
        self._now = now
        self._end = now() + seconds

    @property
    def is_spent(self) -> bool:
        """Whether the page is to end with what it has."""
        return self._now() >= self._end


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    run: Callable[[], Any]
    answer: "asyncio.Future[Any]"


class ListingReader:
    """The listings of one database."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, read_only=True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="listings")
        self._waiting: dict[str, deque[_Asked]] = {}
        self._count = 0
        self._is_reading = False

    async def read(
        self,
        asker: str,
        query: Callable[Concatenate[sqlite3.Connection, _Arguments], _Result],
        *arguments: _Arguments.args,
        **options: _Arguments.kwargs,
    ) -> _Result:
        """Run a query in the turn of `asker`. Raises OVERLOADED if too many of theirs, or of all together, wait."""
        waiting = self._waiting.get(asker, ())
        if self._count >= WAITING_MAX or len(waiting) >= WAITING_EACH_MAX:
            raise Failure(Reason.OVERLOADED, "More is listed at once than is taken; send it again.", retry_after_s=_RETRY_S)
        asked = _Asked(partial(query, self._connection, *arguments, **options), asyncio.get_running_loop().create_future())
        self._waiting.setdefault(asker, deque()).append(asked)
        self._count += 1
        self._next()
        return await asked.answer  # type: ignore[no-any-return]  # what the query returns

    def _next(self) -> None:
        """Run the next query that somebody still waits for."""
        while self._waiting and not self._is_reading:
            asker = next(iter(self._waiting))
            queue = self._waiting.pop(asker)
            asked = queue.popleft()
            self._count -= 1
            if queue:
                self._waiting[asker] = queue  # behind everybody else
            if not asked.answer.done():
                self._is_reading = True
                running = asyncio.get_running_loop().run_in_executor(self._thread, asked.run)
                running.add_done_callback(partial(self._read, asked.answer))

    def _read(self, answer: "asyncio.Future[Any]", running: "asyncio.Future[Any]") -> None:
        self._is_reading = False
        if running.cancelled():
            answer.cancel()
        elif (error := running.exception()) is not None:
            if not answer.done():
                answer.set_exception(error)
        elif not answer.done():
            answer.set_result(running.result())
        self._next()

    async def close(self) -> None:
        """Refuse what waits, let the query under way end, and close."""
        for queue in self._waiting.values():
            for asked in queue:
                asked.answer.cancel()
        self._waiting.clear()
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()
