"""Admin client: asks the workers' admin addresses for their readiness and their metrics.

worker ─/readyz, /metrics─▶ [admin_client] → workers
"""

import asyncio

import aiohttp

from services.delivery.worker_seats import admin_socket
from services.runtime.service_process import WorkerSeat

_WITHIN_S = 2.0


async def readiness_of(seat: WorkerSeat) -> tuple[bool, str] | None:
    """Return whether a worker takes work, and in a sentence why it does not or only in part; empty: it does all of its work.

    None: the worker does not answer.
    """
    try:
        async with _session(seat) as session, session.get("http://worker/readyz") as response:
            body = await response.json()
            return response.status == 200, str(body.get("detail", ""))  # noqa: PLR2004 - OK
    except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError):
        return None


async def metrics_of(seat: WorkerSeat) -> str:
    """Return a worker's metrics in the text format of Prometheus; empty if it does not answer."""
    try:
        async with _session(seat) as session, session.get("http://worker/metrics") as response:
            return await response.text()
    except (aiohttp.ClientError, TimeoutError):
        return ""


async def all_metrics(seats: list[WorkerSeat]) -> dict[int, str]:
    """Return the metrics of several workers, by their numbers."""
    pages = await asyncio.gather(*map(metrics_of, seats))
    return {seat.number: page for seat, page in zip(seats, pages, strict=True)}


def _session(seat: WorkerSeat) -> aiohttp.ClientSession:
    connector = aiohttp.UnixConnector(admin_socket(seat).removeprefix("unix:"))
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=_WITHIN_S))
