"""Readiness: reads the services' /readyz, once or repeatedly.

service → /readyz → [readiness] → health, supervisor
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from services.cli.rest_client import reason_of
from services.cli.supervise.data_directory import DataDirectory
from services.cli.tls import probe_tls

READY = "ready"
TIMEOUT_S = 3.0
# The receipt of a durable event has been printed already; a note about its delivery is not worth a long wait.
_NOTE_S = 1.0
# How many times in a row a state must be seen before it is reported, since many states last only a moment at a start or a restart.
_LOOKS = 3


def probing(timeout_s: float, *, tls: bool, environ: Mapping[str, str] = os.environ) -> aiohttp.ClientSession:
    """Return a session for `readiness`; with `tls`, raises `StartError` for a client certificate that cannot be used."""
    connector = aiohttp.TCPConnector(ssl=probe_tls(environ)) if tls else None
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s), connector=connector)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What a service says of its readiness."""

    state: str
    """`READY`, or a sentence that says why the service is not fully ready."""
    workers: Mapping[str, str] = field(default_factory=dict)
    """The states of its workers by their names; empty if it has none."""


async def readiness(session: aiohttp.ClientSession, url: str) -> str:
    """Return `READY`, or a sentence that says why a service is not fully ready; `url` is its admin address with the scheme."""
    return (await service_state(session, url)).state


async def service_state(session: aiohttp.ClientSession, url: str) -> ServiceState:
    """Return what a service and its workers say; `url` is its admin address with the scheme."""
    try:
        async with session.get(f"{url}/readyz") as response:
            body = await response.json()
            workers = {str(name): str(state) for name, state in body.get("workers", {}).items()}
            if response.status == 200 and "detail" not in body:  # noqa: PLR2004 - OK
                return ServiceState(READY, workers)
            return ServiceState(f"{body.get('status', 'not ready')}: {body.get('detail', response.status)}", workers)
    except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError) as error:
        return ServiceState(f"no answer at {url.removeprefix('http://')}: {reason_of(error)}")


async def why_not_delivered(data_dir: Path) -> str | None:
    """Return why the delivery service that `hooktide up` runs here is not ready; None if it is ready, or no such service is known."""
    delivery = DataDirectory(data_dir).read_addresses().get("delivery")
    if delivery is None:
        return None
    scheme = delivery["admin_scheme"]
    async with probing(_NOTE_S, tls=scheme == "https") as session:
        said = await readiness(session, f"{scheme}://{delivery['admin']}")
    return None if said == READY else said


class ReadinessWatch:
    """Decides which changes of one service's readiness are reported (pure)."""

    def __init__(self) -> None:
        self._said = READY
        self._times = 0
        self._told = READY

    def looked(self, said: str) -> str | None:
        """Take an answer; return it if it must be reported."""
        self._times = self._times + 1 if said == self._said else 1
        self._said = said
        if self._times < _LOOKS or said == self._told:
            return None
        self._told = said
        return said
