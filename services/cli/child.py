"""Child: one service in a process of its own, from its start to its end."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from services.cli.log_file import LogFile
from services.runtime.lifecycle import Addresses

_READY_POLL_S = 0.02


class Child:
    """A running service. It stops when its standard input closes, so it never outlives the supervisor."""

    def __init__(self, process: asyncio.subprocess.Process, ready_file: Path) -> None:
        self._process = process
        self._ready_file = ready_file

    @classmethod
    async def start(cls, service: str, *, environ: Mapping[str, str], ready_file: Path, log: LogFile, lock: int) -> "Child":
        """Start `hooktide serve <service>` with this environment; it inherits the data directory's `lock`."""
        ready_file.unlink(missing_ok=True)
        with log.open() as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                # Not the current directory: a folder named `services` there is none of ours.
                "-P",
                "-m",
                "services",
                "serve",
                service,
                "--ready-file",
                str(ready_file),
                "--until-stdin-closes",
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environ,
                pass_fds=(lock,),
                # Ctrl-C reaches the supervisor alone, which stops the services in order.
                start_new_session=True,
            )
        return cls(process, ready_file)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def ready(self) -> Addresses | None:
        """Wait until it takes work and return where; None where it ended before."""
        while self._process.returncode is None:
            if self._ready_file.exists():
                return Addresses(**json.loads(self._ready_file.read_text()))
            await asyncio.sleep(_READY_POLL_S)
        return None

    async def ended(self) -> int:
        """Wait for its end and return the exit code, that of a signal as its negative number."""
        return await self._process.wait()

    async def stop(self, timeout_s: float) -> None:
        """Ask it to stop and wait for that; kill it after `timeout_s`."""
        if self._process.returncode is None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._process.wait()
            except TimeoutError:
                self.kill()
                await self._process.wait()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGKILL)
