"""Worker process: runs one worker as a process of its own, and starts it again whenever it ends.

[worker_process] → worker, front_door

Law 1: no worker outlives the parent: it stops when its standard input closes.
Law 2: if a worker cannot start the first time, the parent ends with that worker's message.
"""

import asyncio
import contextlib
import os
import time

from services.runtime.child_process import Child, RestartDelay, how_ended
from services.runtime.logs import logger
from services.runtime.service_process import StartError, WorkerSeat, refusal_file

# A little less than `hooktide up` and container engines wait before they kill the parent.
STOP_WITHIN_S = 22.0
_CANNOT_START = 2


class WorkerProcess:
    """The process of one worker; `run` keeps it running."""

    def __init__(self, seat: WorkerSeat, workers: int, lock: int) -> None:
        """Take the seat, the number of workers, and a locked file. The worker inherits the lock, so a later parent waits for its end."""
        self.seat = seat
        # The settings' file may name another number by the time the worker starts again, for the next start of all.
        self._environ = {**os.environ, "HOOKTIDE_DELIVERY_WORKERS": str(workers)}
        self._lock = lock
        self._ready_file = seat.sockets / f"worker-{seat.number}.ready"
        self._child: Child | None = None
        self._was_ready = False
        self._is_ready = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether the worker runs and takes calls."""
        return self._is_ready.is_set()

    @property
    def pid(self) -> int:
        """Its process id; 0 before the first start."""
        return 0 if self._child is None else self._child.pid

    async def ready(self) -> None:
        """Wait until the worker takes calls."""
        await self._is_ready.wait()

    def reload(self) -> None:
        """Let the worker read its settings anew, once it is ready; a worker that is starting reads the new ones anyway."""
        if self._child is not None and self.is_ready:
            self._child.reload()

    async def run(self) -> None:
        """Run the worker until this is cancelled; then let it drain. Raises `StartError` if it cannot start the first time."""
        delay = RestartDelay()
        while True:
            began = time.monotonic()
            code = await self._run_once()
            restart_s = delay.after(time.monotonic() - began)
            how = f"{how_ended(code)}: {self._refusal()}" if code == _CANNOT_START else how_ended(code)
            logger().warning("worker.ended", worker=self.seat.number, how=how, restart_s=restart_s)
            await asyncio.sleep(restart_s)

    async def _run_once(self) -> int:
        """Run the worker to its end and return its exit code."""
        arguments = ["delivery", "--worker", str(self.seat.number), "--sockets", str(self.seat.sockets)]
        refusal_file(self._ready_file).unlink(missing_ok=True)
        child = self._child = Child(arguments, environ=self._environ, ready_file=self._ready_file, inherited=(self._lock,))
        try:
            if await child.ready():
                self._is_ready.set()
                if self._was_ready:
                    logger().info("worker.restarted", worker=self.seat.number, pid=child.pid)
                self._was_ready = True
            code = await child.ended()
        finally:
            self._is_ready.clear()
            await child.stop(STOP_WITHIN_S)
        if code == _CANNOT_START and not self._was_ready:
            raise StartError(f"worker {self.seat.number}: {self._refusal()}")
        return code

    def _refusal(self) -> str:
        with contextlib.suppress(OSError):
            return refusal_file(self._ready_file).read_text()
        return "it could not start; its message is in the log"
