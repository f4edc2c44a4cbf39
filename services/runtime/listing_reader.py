"""Listing reader: runs list queries on a thread and a database connection of its own, so that nothing else waits for them.

Law 1: askers take turns, one query each, so an asker with many queries delays only itself.
Law 2: the number of waiting queries is bounded, for each asker and in all. A query must bound how much it examines (`Budget`).
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
    """How long one query may examine rows. The query checks it between steps, so that a slow disk makes a page smaller and not later."""

    def __init__(self, seconds: float = PAGE_S, now: Callable[[], float] = time.monotonic) -> None:
        """Begin the time now; `now` is the clock, in seconds."""
        self._now = now
        self._end = now() + seconds

    @property
    def is_spent(self) -> bool:
        """Whether the time is over, so that the page must end with the rows it has."""
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
        """Run a query when it is the turn of `asker`. Raises `Failure` OVERLOADED if too many queries of this asker, or of all, wait."""
        waiting = self._waiting.get(asker, ())
        if self._count >= WAITING_MAX or len(waiting) >= WAITING_EACH_MAX:
            raise Failure(Reason.OVERLOADED, "Too many lists are being read; try again.", retry_after_s=_RETRY_S)
        asked = _Asked(partial(query, self._connection, *arguments, **options), asyncio.get_running_loop().create_future())
        self._waiting.setdefault(asker, deque()).append(asked)  # bounded: checked above
        self._count += 1
        self._next()
        return await asked.answer  # type: ignore[no-any-return]  # what the query returns

    def _next(self) -> None:
        """Run the next query whose asker still waits."""
        while self._waiting and not self._is_reading:
            asker = next(iter(self._waiting))
            queue = self._waiting.pop(asker)
            asked = queue.popleft()
            self._count -= 1
            if queue:
                self._waiting[asker] = queue  # behind all other askers
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
        """Cancel the waiting queries, let the running one end, and close."""
        for queue in self._waiting.values():
            for asked in queue:
                asked.answer.cancel()
        self._waiting.clear()
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()
