"""Readiness: whether the services behind the gateway answer, asked again and again in the background.

Law: asking us whether we are ready never makes us ask anybody else, so nobody can multiply calls that way.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

from services.runtime.lifecycle import Lifecycle

# The registry is part of every call; without the others, only their own lists are away.
NEEDED = "subscription"
SERVICES = (NEEDED, "ingest", "delivery")
EVERY_READY_S = 1.0
EVERY_AWAY_S = 0.2


class Readiness:
    """What is known of the services."""

    def __init__(self, answers: Callable[[str], Coroutine[None, None, bool]], lifecycle: Lifecycle) -> None:
        """Take `answers`, which says whether a service does, within a bounded time."""
        self._answers = answers
        self._lifecycle = lifecycle
        self._away: frozenset[str] = frozenset(SERVICES)

    def services(self) -> Mapping[str, str]:
        """Return for each service "ok" or "away"."""
        return {service: "away" if service in self._away else "ok" for service in SERVICES}

    def why_not(self) -> str | None:
        """Return None, or in a sentence why requests cannot be served."""
        if self._lifecycle.stopping.is_set():
            return "The gateway is stopping."
        if NEEDED not in self._away:
            return None
        return "Away: " + ", ".join(service for service in SERVICES if service in self._away) + "."

    async def look(self) -> None:
        """Ask all services once, at the same time."""
        async with asyncio.TaskGroup() as group:
            asked = {service: group.create_task(self._answers(service)) for service in SERVICES}
        self._away = frozenset(service for service, task in asked.items() if not task.result())

    async def keep_looking(self) -> None:
        """Ask again and again, more often while something is away."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_AWAY_S if self._away else EVERY_READY_S)


@contextlib.asynccontextmanager
async def watched(readiness: Readiness) -> AsyncIterator[None]:
    """Keep looking for as long as the block runs."""
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(readiness.keep_looking())
        try:
            yield
        finally:
            looking.cancel()
