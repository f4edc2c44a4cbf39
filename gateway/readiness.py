"""Readiness: asks the services behind the gateway in the background whether they are ready.

Law: a readiness request to the gateway never causes a call to a service, so nobody can multiply calls that way.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping

from services.runtime.service_process import ServiceProcess

# Every request with a key needs the registry. Without one of the other services, only the routes to that service fail.
REQUIRED = "subscription"
SERVICES = (REQUIRED, "ingest", "delivery")
CHECK_READY_S = 1.0
CHECK_AWAY_S = 0.2


AWAY = "away"


class Readiness:
    """The last known state of the services."""

    def __init__(self, ask: Callable[[str], Coroutine[None, None, str | None]], process: ServiceProcess) -> None:
        """Take `ask`: within a bounded time it returns None, `AWAY`, or a sentence that says why a service is not fully ready."""
        self._ask = ask
        self._process = process
        self._not_ready: dict[str, str] = dict.fromkeys(SERVICES, AWAY)

    def services(self) -> Mapping[str, str]:
        """Return "ok", "away" or "not ready" for each service, without reasons, since anybody may read it."""
        return {service: self._state_of(service) for service in SERVICES}

    def _state_of(self, service: str) -> str:
        if service not in self._not_ready:
            return "ok"
        return AWAY if self._not_ready[service] == AWAY else "not ready"

    def why_not_ready(self) -> str | None:
        """Return None, or a sentence that says why requests cannot be served."""
        if self._process.stopping.is_set():
            return "The gateway is stopping."
        if REQUIRED not in self._not_ready:
            return None
        return "Not available: " + ", ".join(service for service in SERVICES if self._not_ready.get(service) == AWAY) + "."

    def why_degraded(self) -> str | None:
        """Return None, or a sentence for operators that names the services that are not ready, and why."""
        wrong = [f"{service} is {why if why == AWAY else f'not ready: {why}'}" for service, why in self._not_ready.items()]
        return "; ".join(wrong) or None

    async def check(self) -> None:
        """Ask all services once, at the same time."""
        async with asyncio.TaskGroup() as group:
            asked = {service: group.create_task(self._ask(service)) for service in SERVICES}
        self._not_ready = {service: why for service, task in asked.items() if (why := task.result()) is not None}

    async def keep_checking(self) -> None:
        """Ask all services at intervals, and more often while one is away."""
        while True:
            await self.check()
            await asyncio.sleep(CHECK_AWAY_S if AWAY in self._not_ready.values() else CHECK_READY_S)
