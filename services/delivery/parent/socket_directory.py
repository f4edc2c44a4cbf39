"""Socket directory: the directory of the sockets between a parent and its workers, and the lock by which a parent waits for former workers.

Law: only the owner's processes can enter the directory.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from services.runtime.database_files import open_lock
from services.runtime.logs import logger
from services.runtime.service_process import StartError

# The system's limit for the path of a Unix socket is 108 bytes with the zero at its end, on some systems 104.
_PATH_BYTES_MAX = 100
_LONGEST_NAME = "delivery-15.sock"
_WORKERS_END_WITHIN_S = 30.0
_POLL_S = 0.1


@contextlib.contextmanager
def socket_directory(data_dir: Path) -> Iterator[Path]:
    """Yield an empty directory: `run/delivery` in the data directory, or a temporary one if that path is too long for sockets."""
    directory = data_dir.absolute() / "run" / "delivery"
    is_temporary = len(os.fsencode(directory / _LONGEST_NAME)) > _PATH_BYTES_MAX
    try:
        if is_temporary:
            directory = Path(tempfile.mkdtemp(prefix="hooktide-"))
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        for left in directory.iterdir():
            left.unlink()
    except OSError as error:
        message = f"cannot use {directory}: {error.strerror}; set HOOKTIDE_DATA_DIR to a directory that can be written"
        raise StartError(message) from error
    try:
        yield directory
    finally:
        if is_temporary:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def workers_lock(database: Path) -> AsyncIterator[int]:
    """Hold the lock that all workers of these ledgers inherit; yield its descriptor.

    If the parent is killed, its workers end within seconds, and the next parent waits for them. Raises `StartError` if they do not end.
    """
    descriptor = open_lock(database.with_name(f"{database.name}.workers.lock"))
    try:
        end, has_said = time.monotonic() + _WORKERS_END_WITHIN_S, False
        while not _is_locked(descriptor):
            if time.monotonic() > end:
                message = f"{database} is in use by another delivery service or by its workers; stop that service first"
                raise StartError(message)
            if not has_said:
                has_said = True
                logger().warning("workers.waiting", effect="this delivery service starts once the workers of the former one have ended")
            await asyncio.sleep(_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
