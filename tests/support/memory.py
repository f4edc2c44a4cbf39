"""Memory: the resident memory of a system's processes, sampled while a test runs."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
import psutil

from tests.support.system.processes import SERVICES, System

MB = 1_000_000


def resident_bytes(system: System, name: str) -> int:
    """Return the resident memory of a service's process."""
    process = system.services[name].process
    assert process is not None
    return int(psutil.Process(process.pid).memory_info().rss)


@dataclass(slots=True)
class Samples:
    """Resident memory over time, by service, in bytes."""

    system: System
    names: Sequence[str] = SERVICES
    taken: dict[str, list[int]] = field(default_factory=dict)

    def take(self) -> dict[str, int]:
        """Take one sample of each running process."""
        now = {name: resident_bytes(self.system, name) for name in self.names if self.system.running(name)}
        for name, size in now.items():
            self.taken.setdefault(name, []).append(size)
        return now

    def most(self, name: str) -> int:
        """Return the largest sample of a service."""
        return max(self.taken[name])


@contextlib.asynccontextmanager
async def sampled(
    system: System,
    names: Sequence[str] = SERVICES,
    *,
    every_s: float = 0.1,
    tell: Callable[[str], None] | None = None,
    tell_every_s: float = 5.0,
) -> AsyncIterator[Samples]:
    """Take samples while the body runs; call `tell` with a line now and then."""
    samples = Samples(system, names)
    samples.take()

    async def watch() -> None:
        began = told = time.monotonic()
        while True:
            await asyncio.sleep(every_s)
            now = samples.take()
            if tell is not None and time.monotonic() - told >= tell_every_s:
                told = time.monotonic()
                tell(f"{told - began:7.1f} s  " + "  ".join(f"{name} {size / MB:6.1f} MB" for name, size in now.items()))

    watching = asyncio.create_task(watch())
    try:
        yield samples
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        samples.take()


async def metric(system: System, service: str, name: str) -> float:
    """Return the value of a metric of a service."""
    async with aiohttp.ClientSession() as http, http.get(f"http://{system.services[service].admin}/metrics") as answer:
        for line in (await answer.text()).splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    raise AssertionError(name)
