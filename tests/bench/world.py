"""World: assigns the cores, and runs the system on its own core."""

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.support.system.processes import ROOT, System

SERVICE_CORE, LOAD_CORE = 0, 1
_QUIET_S, _QUIET_WITHIN_S, _QUIET_SHARE = 0.2, 20.0, 0.1


def pin() -> None:
    """Put this process, and everything that it starts, on the load's core, with as many open files as permitted."""
    os.sched_setaffinity(0, {LOAD_CORE})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.asynccontextmanager
async def bench_system(
    *names: str, transport: str = "http", roots: str = "", settings: Mapping[str, str] | None = None
) -> AsyncIterator[System]:
    """Run services on their core; without names, all four. `roots` is a file of certificates to trust instead of the machine's."""
    extra = {"BENCH_CORE": str(SERVICE_CORE), "BENCH_TRANSPORT": transport, **({"SSL_CERT_FILE": roots} if roots else {})}
    with tempfile.TemporaryDirectory(prefix="hooktide-bench-") as folder:
        system = System(Path(folder), dict(settings or {}), module="tests.bench.serve", extra=extra)
        try:
            await (system.start(names) if names else system.start())
            yield system
        finally:
            await system.close()


def cpu_s(system: System, *names: str) -> float:
    """Return the CPU time in seconds that services and their workers have used so far; without names, of all services."""
    running = [service.process for name, service in system.services.items() if service.process and (not names or name in names)]
    processes = [psutil.Process(process.pid) for process in running]
    times = [each.cpu_times() for process in processes for each in (process, *process.children())]
    return sum(each.user + each.system for each in times)


async def quiet(system: System) -> None:
    """Wait until a system has finished and recorded its work, and until the disk has all earlier writes."""
    await asyncio.to_thread(os.sync)
    end = time.monotonic() + _QUIET_WITHIN_S
    while True:
        before = cpu_s(system)
        await asyncio.sleep(_QUIET_S)
        if cpu_s(system) - before < _QUIET_SHARE * _QUIET_S:
            return
        if time.monotonic() > end:
            message = f"the services are still at work {_QUIET_WITHIN_S:.0f} s after what was asked of them"
            raise TimeoutError(message)


async def on_service_core(module: str, given: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Any:
    """Run a program on the services' core; its input is JSON with the `core` added, and its answer is JSON."""
    text, pipe = json.dumps({"core": SERVICE_CORE, **given}), subprocess.PIPE
    with subprocess.Popen([sys.executable, "-m", module], stdin=pipe, stdout=pipe, cwd=ROOT, env=environ, text=True) as process:  # noqa: ASYNC220, S603 - ours
        try:
            answer, _ = await asyncio.to_thread(process.communicate, text)
        finally:
            process.kill()
    assert process.returncode == 0, f"{module} has failed"
    return json.loads(answer)
