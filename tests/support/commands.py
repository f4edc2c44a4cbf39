"""Commands: runs the `hooktide` command as a process, as its users do, and reads what it prints.

The spawner forks the process, which spares its imports. What a command itself starts, it starts as always.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.support.service_spawner import shared_spawner
from tests.support.system.processes import ROOT

WITHIN_S = 60.0


def clean_environ(**more: str) -> dict[str, str]:
    """Return this process's environment without Hooktide's settings, plus `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOOKTIDE_")}
    # Keep compiled modules: otherwise every start compiles all of them again.
    for name in ("PYTHONDONTWRITEBYTECODE", "FORCE_COLOR", "TTY_COMPATIBLE"):
        kept.pop(name, None)
    return kept | more


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


class CommandProcess:
    """A command's process: the part of `asyncio.subprocess.Process` that tests use."""

    def __init__(
        self, pid: int, status: asyncio.StreamReader, stdin: IO[bytes], readers: tuple[asyncio.StreamReader, asyncio.StreamReader]
    ) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = stdin
        self.stdout, self.stderr = readers
        self._status = status

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    async def communicate(self, given: bytes = b"") -> tuple[bytes, bytes]:
        """Give it its input, read all of its output, and wait for its end."""

        def give() -> None:
            # It may end without having read its input.
            with contextlib.suppress(BrokenPipeError), self.stdin:
                self.stdin.write(given)

        _, out, err = await asyncio.gather(asyncio.to_thread(give), self.stdout.read(), self.stderr.read())
        if self.returncode is None:
            self.returncode = int(await self._status.readline())
        return out, err


async def hooktide(*arguments: str, environ: Mapping[str, str] | None = None, stdin: str = "", cwd: Path = ROOT) -> Ended:
    """Run a command to its end."""
    async with _process(arguments, environ, cwd) as process, asyncio.timeout(WITHIN_S):
        out, err = await process.communicate(stdin.encode())
    return Ended(process.returncode or 0, out.decode(), err.decode())


@dataclass
class Command:
    """A command that runs until a test stops it."""

    process: CommandProcess | asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def line(self, containing: str = "") -> str:
        """Return the next line of standard output that contains a text."""
        async with asyncio.timeout(WITHIN_S):
            assert self.process.stdout is not None
            while raw := await self.process.stdout.readline():
                self.lines.append(raw.decode().rstrip("\n"))
                if containing in self.lines[-1]:
                    return self.lines[-1]
        raise AssertionError(await self.end())

    async def says(self, containing: str) -> str:
        """Return the next line of standard error that contains a text."""
        async with asyncio.timeout(WITHIN_S):
            assert self.process.stderr is not None
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
    async with _process(arguments, environ, ROOT) as process:
        yield Command(process)


@contextlib.asynccontextmanager
async def _process(arguments: tuple[str, ...], environ: Mapping[str, str] | None, cwd: Path) -> AsyncIterator[CommandProcess]:
    (stdin, write_stdin), (read_stdout, stdout), (read_stderr, stderr) = (os.pipe() for _ in range(3))
    try:
        status = shared_spawner().start(
            "services", arguments, clean_environ() if environ is None else environ, (stdin, stdout, stderr), cwd
        )
    finally:
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)
    async with contextlib.AsyncExitStack() as stack:
        stdin_file = stack.enter_context(os.fdopen(write_stdin, "wb"))
        out, err, reader = [await stack.enter_async_context(_reading(each)) for each in (read_stdout, read_stderr, status)]
        process = CommandProcess(int(await reader.readline()), reader, stdin_file, (out, err))
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


@contextlib.asynccontextmanager
async def _reading(descriptor: int) -> AsyncIterator[asyncio.StreamReader]:
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        yield reader
    finally:
        transport.close()
