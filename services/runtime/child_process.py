"""Child process: one service in a process of its own, from its start to its end; and how long to wait before it starts again."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

RESTART_FIRST_S = 0.2
RESTART_MAX_S = 10.0
STEADY_S = 30.0
# Looks at a process become rarer while it runs, since each takes CPU time.
_POLL_S, _POLL_MAX_S, _POLL_GROWTH = 0.02, 0.1, 1.1


class Child:
    """A running service. It stops when its standard input closes, so it never outlives its parent.

    The standard library starts and awaits it, not the event loop: uvloop forks, and a process that uses gRPC must not fork. `subprocess`
    uses vfork and exec.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str],
        ready_file: Path,
        output: BinaryIO | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        """Start `hooktide serve` with these arguments and this environment.

        It writes into `output`, or where this process writes. It inherits the files `inherited`, such as a lock.
        """
        self._ready_file = ready_file
        ready_file.unlink(missing_ok=True)
        # -P: without the current directory, since a folder named `services` there is not ours.
        command = [sys.executable, "-P", "-m", "services", "serve", *arguments, "--ready-file", str(ready_file), "--until-stdin-closes"]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environ,
            pass_fds=inherited,
            # Ctrl-C must reach only the parent, since it stops the services in order.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def ready(self) -> bool:
        """Wait until the service takes work; return False if it ended before."""
        while self._process.poll() is None:
            if self._ready_file.exists():
                return True
            await asyncio.sleep(_POLL_S)
        return False

    async def ended(self) -> int:
        """Wait for the end of the process and return its exit code; a signal counts as its negative number."""
        wait_s = _POLL_S
        while (code := self._process.poll()) is None:  # no API reports a process's end on every system
            await asyncio.sleep(wait_s)
            wait_s = min(_POLL_MAX_S, wait_s * _POLL_GROWTH)
        self._close_stdin()
        return code

    async def stop(self, timeout_s: float) -> None:
        """Ask the service to stop, wait for its end, and kill it after `timeout_s`."""
        self._close_stdin()
        try:
            async with asyncio.timeout(timeout_s):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()

    def reload(self) -> None:
        """Make the service read its settings anew. Call this only once it is ready, since SIGHUP ends a process that is starting."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """Kill the process at once, as a crash would."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)

    def _close_stdin(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


class RestartDelay:
    """How long a service that has ended waits before it starts again (pure)."""

    def __init__(self) -> None:
        self._next_s = RESTART_FIRST_S

    def after(self, ran_s: float) -> float:
        """Return the wait in seconds: it doubles each time, up to a maximum, and is short again after a steady run."""
        wait_s = RESTART_FIRST_S if ran_s > STEADY_S else self._next_s
        self._next_s = min(RESTART_MAX_S, wait_s * 2)
        return wait_s


def how_ended(code: int) -> str:
    """Return how a process has ended, for people."""
    return f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def usable_cores() -> int:
    """Return on how many cores this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
