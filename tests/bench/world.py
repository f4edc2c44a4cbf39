"""World: which core is whose, and the system on its own."""

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

from tests.support.system import ROOT, System

SERVICE_CORE, LOAD_CORE = 0, 1
_QUIET_S, _QUIET_WITHIN_S, _QUIET_SHARE = 0.2, 20.0, 0.1


def pin() -> None:
    """Put this process on the load's core, with as many files open at once as it may have, and all that it starts likewise."""
    os.sched_setaffinity(0, {LOAD_CORE})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.asynccontextmanager
async def bench_system(*names: str, transport: str = "http", roots: str = "") -> AsyncIterator[System]:
    """Run services on their core; without names, all four. `roots` is a file of certificates to trust in place of the machine's."""
    extra = {"BENCH_CORE": str(SERVICE_CORE), "BENCH_TRANSPORT": transport, **({"SSL_CERT_FILE": roots} if roots else {})}
    with tempfile.TemporaryDirectory(prefix="hooktide-bench-") as folder:
        system = System(Path(folder), {}, module="tests.bench.serve", extra=extra)
        try:
            await (system.start(names) if names else system.start())
            yield system
        finally:
            await system.close()


def cpu_s(system: System, *names: str) -> float:
    """Return the CPU time that services have taken so far, in seconds; without names, all of them."""
    running = [service.process for name, service in system.services.items() if service.process and (not names or name in names)]
    times = [psutil.Process(process.pid).cpu_times() for process in running]
    return sum(each.user + each.system for each in times)


async def quiet(system: System) -> None:
    """Wait until a system has ended what it had to do, and recorded it, and until the disk has what others wrote before."""
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
    """Run a program on the services' core: it is given JSON, with its `core`, and its answer is JSON too."""
    text, pipe = json.dumps({"core": SERVICE_CORE, **given}), subprocess.PIPE
    with subprocess.Popen([sys.executable, "-m", module], stdin=pipe, stdout=pipe, cwd=ROOT, env=environ, text=True) as process:  # noqa: ASYNC220, S603 - ours
        try:
            answer, _ = await asyncio.to_thread(process.communicate, text)
        finally:
            process.kill()
    assert process.returncode == 0, f"{module} has failed"
    return json.loads(answer)
