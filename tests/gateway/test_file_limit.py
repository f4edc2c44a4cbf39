"""File limit: more silent connections than the gateway's process may have open files."""

import asyncio
import contextlib
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.gateway.raw_http import Dialled, head
from tests.gateway.world import TOKEN
from tests.support.system.processes import ROOT, System

FILES_MAX = 1024
SILENT = 1300
_LIMITED = f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES_MAX}, {FILES_MAX}))
runpy.run_module("services", run_name="__main__")
"""


@contextlib.asynccontextmanager
async def limited_gateway(folder: Path) -> AsyncIterator[str]:
    """Run a gateway that may have 1 024 files open; yield its address. The services behind it are down."""
    ready_file, away = folder / "ready", "127.0.0.1:1"
    environ = System(folder, {}).environment() | {
        "HOOKTIDE_SERVICE_TOKEN": TOKEN,
        **{f"HOOKTIDE_GATEWAY_{name}": "127.0.0.1:0" for name in ("LISTEN", "ADMIN_LISTEN")},
        **{f"HOOKTIDE_{name}_TARGET": away for name in ("SUBSCRIPTION", "INGEST", "DELIVERY")},
    }
    command = [sys.executable, "-c", _LIMITED, "serve", "gateway", "--ready-file", str(ready_file)]
    process = subprocess.Popen(command, env=environ, cwd=ROOT)  # noqa: ASYNC220, S603 - our own module
    try:
        async with asyncio.timeout(60):
            while not ready_file.exists():  # noqa: ASYNC110 - another process's file
                await asyncio.sleep(0.02)
        yield json.loads(ready_file.read_text())["listen"]
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait) == 0


async def test_honest_clients_are_served_beside_more_silent_connections_than_there_are_files(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with limited_gateway(tmp_path) as listen, contextlib.AsyncExitStack() as stack:
        host, _, port = listen.rpartition(":")
        for number in range(SILENT):
            silent = stack.enter_context(socket.socket())
            silent.bind((f"127.0.0.{2 + number % 8}", 0))
            await asyncio.to_thread(silent.connect, (host, int(port)))
        for _ in range(5):
            began = time.monotonic()
            async with Dialled(listen) as honest:
                await honest.send(head("GET", "/healthz"))
                assert (await honest.answer()).status == 200
            # Silent connections are closed after ten seconds; an honest client does not wait for that.
            assert time.monotonic() - began < 8
