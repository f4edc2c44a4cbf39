"""Service spawner: starts services in a tenth of the usual time, so that tests can kill many.

Most of a start is importing. Here one process imports everything once, before it has any thread, and each start is a
fork of it: a process of its own, with its own memory, files and sockets, which a test kills like any other. A fork differs
from a start by hand (`tests/e2e` does that) only in where the modules come from.
"""

import contextlib
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

from tests.support.system import ROOT

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
        read_status, write_status = os.pipe()
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        given = [read_stdin, log, write_status]
        order = json.dumps({"module": command[2], "argv": list(command[3:]), "environ": dict(environ)}).encode()
        socket.send_fds(self._ordering, [order], given)
        for descriptor in given:
            os.close(descriptor)
        return SpawnedProcess(os.fdopen(write_stdin, "wb"), os.fdopen(read_status))


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
    message, given, _, _ = socket.recv_fds(orders, _MESSAGE_BYTES_MAX, 3)
    if not message:
        return False
    stdin, output, status = given
    pid = os.fork()
    if pid == 0:
        _be(json.loads(message), stdin, output)
    os.write(status, f"{pid}\n".encode())
    os.close(stdin)
    os.close(output)
    children[pid] = status
    return True


def _be(order: Mapping[str, object], stdin: int, output: int) -> NoReturn:
    """Become the ordered process."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    for descriptor, standard in ((stdin, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, standard)
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update(order["environ"])  # type: ignore[call-overload]  # as `spawn` has put it there
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
