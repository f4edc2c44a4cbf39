"""Admin client: asks a worker's admin address for its readiness and its metrics.

worker ─/readyz, /metrics─▶ [admin_client] → workers
"""

import aiohttp

from services.delivery.worker_seats import admin_socket
from services.runtime.service_process import WorkerSeat

_WITHIN_S = 2.0


class AdminClient:
    """A connection to one worker's admin address, which stays open between the questions."""

    def __init__(self, seat: WorkerSeat) -> None:
        connector = aiohttp.UnixConnector(admin_socket(seat).removeprefix("unix:"))
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=_WITHIN_S))

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def readiness(self) -> tuple[bool, str] | None:
        """Return whether the worker takes work, and a sentence that says what it does not do and why; empty if it does all of its work.

        None: the worker does not answer.
        """
        try:
            async with self._session.get("http://worker/readyz") as response:
                body = await response.json()
                return response.status == 200, str(body.get("detail", ""))  # noqa: PLR2004 - OK
        except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError):
            return None

    async def metrics(self) -> str:
        """Return the worker's metrics in the text format of Prometheus; empty if it does not answer."""
        try:
            async with self._session.get("http://worker/metrics") as response:
                return await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return ""
