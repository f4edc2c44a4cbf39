"""Spawner: starts services and commands in a tenth of the usual time.

Most of a start is importing. Here one process imports everything once, before it has any thread, and each start is a
fork of it: a process of its own, with its own memory, files and sockets, which a test kills like any other. A fork differs
from a start by hand (`tests/e2e` does that) only in where the modules come from.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

from tests.support.system.processes import ROOT

_MESSAGE_BYTES_MAX = 256 * 1024
_IMPORTED = ("services.cli.app", "services.subscription.app", "services.ingest.app", "services.delivery.app", "gateway.app", "hooktide")


class SpawnedProcess:
    """A process that the spawner has started; used like `subprocess.Popen`."""

    def __init__(self, stdin: IO[bytes], status: IO[str]) -> None:
        self.stdin = stdin
        self._status = status
        line = status.readline()
        assert line, "the spawner has ended"
        self.pid = int(line)
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        with selectors.DefaultSelector() as selector:
            if self._code is None:
                selector.register(self._status, selectors.EVENT_READ)
                if selector.select(0):
                    self.wait()
        return self._code

    def wait(self) -> int:
        """Wait for the end of the process and return the exit code."""
        if self._code is None:
            self._code = int(self._status.readline())
            self._status.close()
        return self._code

    def terminate(self) -> None:
        """Send it SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)


class Spawner:
    """The process that starts other processes; made by `running_spawner`."""

    def __init__(self, ordering: socket.socket) -> None:
        self._ordering = ordering

    def spawn(self, command: Sequence[str], environ: Mapping[str, str], output: Path) -> SpawnedProcess:
        """Start a command of the form `python -m <module> …`; the spawner's interpreter runs the module."""
        assert command[0] == sys.executable, command
        assert command[1] == "-m", command
        read_stdin, write_stdin = os.pipe()
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            status = self.start(command[2], command[3:], environ, (read_stdin, log, log))
        finally:
            os.close(read_stdin)
            os.close(log)
        return SpawnedProcess(os.fdopen(write_stdin, "wb"), os.fdopen(status))

    def start(
        self, module: str, arguments: Sequence[str], environ: Mapping[str, str], streams: tuple[int, int, int], cwd: Path = ROOT
    ) -> int:
        """Start a module with these standard streams, which stay open here; return a pipe with two lines: pid, exit code."""
        read_status, write_status = os.pipe()
        order = {"module": module, "argv": list(arguments), "environ": dict(environ), "cwd": str(cwd)}
        try:
            socket.send_fds(self._ordering, [json.dumps(order).encode()], [*streams, write_status])
        finally:
            os.close(write_status)
        return read_status


@contextlib.contextmanager
def running_spawner(environ: Mapping[str, str] | None = None) -> Iterator[Spawner]:
    """Run a spawner with further environment variables; its children end when their standard input closes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        command = [sys.executable, "-m", "tests.support.service_spawner", str(theirs.fileno())]
        with theirs:
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, **(environ or {})}, cwd=ROOT)  # noqa: S603 - ours
        yield Spawner(ours)
    process.wait()


@functools.cache
def shared_spawner() -> Spawner:
    """Return the spawner of all tests that need no other; it starts at the first call and ends with the tests."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running_spawner())


def main(descriptor: int) -> None:
    """Serve orders until the other end of the socket closes."""
    for name in _IMPORTED:
        __import__(name)
    gc.collect()
    gc.freeze()
    # From here on ignore the terminal's interrupt: this process ends when its users do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    woken, waking = socket.socketpair()
    os.set_blocking(waking.fileno(), False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    children: dict[int, int] = {}
    with socket.socket(fileno=descriptor) as orders, selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if woken in ready:
                woken.recv(4096)
                _report(children)
            if orders in ready and not _take_order(orders, children):
                return


def _report(children: dict[int, int]) -> None:
    while children:
        pid, state = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        status = children.pop(pid)
        with contextlib.suppress(BrokenPipeError):
            os.write(status, f"{os.waitstatus_to_exitcode(state)}\n".encode())
        os.close(status)


def _take_order(orders: socket.socket, children: dict[int, int]) -> bool:
    message, given, _, _ = socket.recv_fds(orders, _MESSAGE_BYTES_MAX, 4)
    if not message:
        return False
    *streams, status = given
    pid = os.fork()
    if pid == 0:
        _be(json.loads(message), streams)
    os.write(status, f"{pid}\n".encode())
    for stream in streams:
        os.close(stream)
    children[pid] = status
    return True


def _be(order: Mapping[str, object], streams: Sequence[int]) -> NoReturn:
    """Become the ordered process."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for standard, stream in enumerate(streams):
        os.dup2(stream, standard)
    os.closerange(3, 256)
    # As a new interpreter makes them for pipes and files, whatever the spawner's own are.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor, open to the end
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115 - the same
    os.chdir(str(order["cwd"]))
    os.environ.clear()
    os.environ.update(order["environ"])  # type: ignore[call-overload]  # as `start` has put it there
    sys.argv = ["", *order["argv"]]  # type: ignore[misc]  # the same
    code: object = 0
    try:
        runpy.run_module(str(order["module"]), run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - the outermost frame
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
