"""Processes: runs the `hooktide` command as a process, as its users do."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WITHIN_S = 60.0
# Tests start hundreds of short processes: only the first one compiles each module, whatever the environment says.
_COMPILED = Path(tempfile.gettempdir()) / "hooktide-tests-pycache"


def clean_environ(**more: str) -> dict[str, str]:
    """Return this process's environment without Hooktide's settings, plus `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOOKTIDE_")}
    for name in ("PYTHONDONTWRITEBYTECODE", "FORCE_COLOR", "TTY_COMPATIBLE"):
        kept.pop(name, None)
    return kept | {"PYTHONPYCACHEPREFIX": str(_COMPILED)} | more


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object on the only line of the output."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


async def hooktide(*arguments: str, environ: Mapping[str, str] | None = None, stdin: str = "", cwd: Path | None = None) -> Ended:
    """Run a command to its end."""
    process = await _start(arguments, environ, cwd)
    async with asyncio.timeout(WITHIN_S):
        out, err = await process.communicate(stdin.encode())
    return Ended(process.returncode or 0, out.decode(), err.decode())


@dataclass
class Command:
    """A command that runs until a test stops it."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def line(self, containing: str = "") -> str:
        """Return the next line of standard output that contains a text."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WITHIN_S):
            while raw := await self.process.stdout.readline():
                self.lines.append(raw.decode().rstrip("\n"))
                if containing in self.lines[-1]:
                    return self.lines[-1]
        raise AssertionError(await self.end())

    async def says(self, containing: str) -> str:
        """Return the next line of standard error that contains a text."""
        assert self.process.stderr is not None
        async with asyncio.timeout(WITHIN_S):
            while raw := await self.process.stderr.readline():
                if containing in raw.decode():
                    return raw.decode().rstrip("\n")
        raise AssertionError(await self.end())

    async def json_line(self) -> dict[str, Any]:
        """Return the next line of standard output as a JSON object."""
        value = json.loads(await self.line())
        assert isinstance(value, dict)
        return value

    async def end(self, number: signal.Signals | None = None) -> Ended:
        """Send a signal, wait for the end, and return how the command ended; `out` holds only the output that was not read before."""
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(WITHIN_S):
            out, err = await self.process.communicate()
        return Ended(self.process.returncode or 0, out.decode(), err.decode())


@contextlib.asynccontextmanager
async def running(*arguments: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Command]:
    """Run a command in the background; kill it at the end if it still runs."""
    command = Command(await _start(arguments, environ, None))
    try:
        yield command
    finally:
        if command.process.returncode is None:
            command.process.kill()
        await command.process.communicate()


async def _start(arguments: tuple[str, ...], environ: Mapping[str, str] | None, cwd: Path | None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "services",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environ() if environ is None else environ,
        cwd=cwd,
        limit=16 * 1024 * 1024,
    )
