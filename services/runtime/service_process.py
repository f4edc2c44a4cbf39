"""Service process: a process from its start to its stop.

Law 1: the first signal, or the end of the supervisor, asks for a stop. A signal after that ends the process at once.
Law 2: a service that cannot go on ends the whole process; it never runs half-broken.
Law 3: once its event loop runs, a process that can reload does so on SIGHUP. If SIGHUP means that its terminal is gone, it ends.
"""

import asyncio
import errno
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvloop

from services.runtime.file_limit import raise_file_limit
from services.runtime.logs import logger
from services.runtime.memory import giving_back_free_memory, keep_freed_memory, spare_the_collector


class StartError(Exception):
    """The process cannot start; the message is one line that says what to change."""


class FatalError(Exception):
    """The service cannot go on, for a cause outside its code; the message is one line that says what to change."""


def cannot_listen(listen: str, error: OSError) -> StartError:
    """Return why a service cannot listen at an address, and what to change."""
    match error.errno:
        case errno.EADDRINUSE:
            why = "another process uses this address; stop that process, or choose another address"
        case errno.EADDRNOTAVAIL:
            why = "this is not an address of this machine; choose one that is"
        case errno.EACCES:
            why = "this process has no permission; choose a port above 1023, or a directory that it may write to"
        case _:
            why = f"{error.strerror}; choose another address"
    return StartError(f"cannot listen on {listen}: {why}")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running service is reached, as ``host:port`` or ``unix:path``."""

    listen: str
    admin: str


@dataclass(frozen=True, slots=True)
class WorkerSeat:
    """Which of several workers a process is, counted from 0, and the directory of the sockets between it and its parent."""

    number: int
    sockets: Path


class ServiceProcess:
    """The link between a service and its process: requests to stop or reload, and reports of readiness and failure."""

    def __init__(self, service: str, *, ready_file: Path | None = None, seat: WorkerSeat | None = None) -> None:
        self.service = service
        self.seat = seat
        """Set if the process is one of several workers, started by their parent."""
        self.stopping = asyncio.Event()
        self.reload_asked = asyncio.Event()
        """Set to ask for a reload of the settings; the code that reloads clears it."""
        self._ready_file = ready_file
        self._failure: BaseException | None = None

    def ready(self, **addresses: str) -> None:
        """Report that the service takes work, and at which addresses."""
        spare_the_collector()
        logger().info("service.ready", **addresses)
        if self._ready_file is not None:
            part = self._ready_file.with_suffix(".part")
            part.write_text(json.dumps(addresses))
            part.replace(self._ready_file)

    def stop(self) -> None:
        """Ask for a stop."""
        self.stopping.set()

    def fail(self, failure: BaseException) -> None:
        """Stop, because the service can no longer work correctly; the process exits with code 1."""
        if self._failure is None:
            self._failure = _fatal(failure) or failure
        self.stopping.set()

    def raise_failure(self) -> None:
        """Raise the failure that `fail` was called with, if there is one."""
        if self._failure is not None:
            raise self._failure


Serve = Callable[[ServiceProcess], Awaitable[None]]


async def serve_until_stopped(running: AbstractAsyncContextManager[Addresses], process: ServiceProcess) -> None:
    """Run a service, whose context manager starts and stops it, until its process is asked to stop."""
    async with running as addresses:
        process.ready(listen=addresses.listen, admin=addresses.admin)
        await process.stopping.wait()


def run(
    service: str,
    serve: Serve,
    *,
    ready_file: Path | None = None,
    until_stdin_closes: bool = False,
    reloads: bool = False,
    seat: WorkerSeat | None = None,
) -> int:
    """Run a service to its end and return the exit code: 0 after a stop, 1 after a failure, 2 if it could not start.

    With `reloads`, SIGHUP sets `ServiceProcess.reload_asked`. Without, SIGHUP ends the process, as it does by default. A worker (`seat`)
    that could not start writes the reason beside its ready file, for its parent.
    """
    structlog.contextvars.bind_contextvars(service=service, **({} if seat is None else {"worker": seat.number}))
    keep_freed_memory()
    raise_file_limit()
    try:
        process = ServiceProcess(service, ready_file=ready_file, seat=seat)
        uvloop.run(_main(process, serve, until_stdin_closes=until_stdin_closes, reloads=reloads))
    except StartError as error:
        if seat is not None and ready_file is not None:
            try:
                refusal_file(ready_file).write_text(str(error))
            except OSError:  # the directory is gone: the parent cannot read it, but people can
                logger().error("worker.refused", why=str(error))
            return 2
        sys.stderr.write(f"hooktide {service}: {error}\n")
        return 2
    except Exception as error:  # noqa: BLE001 - the outermost frame: logged, then the exit code
        if (fatal := _fatal(error)) is not None:
            logger().error("service.failed", why=str(fatal))
        else:
            logger().exception("service.failed")
        return 1
    return 0


def refusal_file(ready_file: Path) -> Path:
    """Return the file into which a worker writes why it could not start."""
    return ready_file.with_suffix(".refused")


def _fatal(error: BaseException) -> FatalError | None:
    """Return `error` if it is a `FatalError`, or the first `FatalError` in an exception group; else None."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _fatal(each)) is not None), None)
    return error if isinstance(error, FatalError) else None


async def _main(process: ServiceProcess, serve: Serve, *, until_stdin_closes: bool, reloads: bool) -> None:
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if process.stopping.is_set():
            os._exit(130)
        logger().info("service.stopping")
        process.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    if reloads:
        _reload_on_sighup(loop, process)
    if until_stdin_closes:
        try:
            loop.add_reader(sys.stdin.fileno(), lambda: _on_stdin(loop, process))
        except (OSError, ValueError) as error:
            message = (
                "--until-stdin-closes needs a pipe as standard input, so that its other end can close; give it one, or leave the option out"
            )
            raise StartError(message) from error
    with giving_back_free_memory(loop):
        await serve(process)
    process.raise_failure()
    logger().info("service.stopped")


def _reload_on_sighup(loop: asyncio.AbstractEventLoop, process: ServiceProcess) -> None:
    """Ask for a reload on SIGHUP, unless the signal means that the terminal is gone. A process under `nohup` outlives its terminal."""
    outlives_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN or not _has_terminal()

    def on_hangup() -> None:
        if outlives_terminal or _has_terminal():
            process.reload_asked.set()
        else:
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGHUP)

    loop.add_signal_handler(signal.SIGHUP, on_hangup)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def _on_stdin(loop: asyncio.AbstractEventLoop, process: ServiceProcess) -> None:
    """Stop once the supervisor has closed its end of the pipe; ignore what it writes."""
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        process.stop()
