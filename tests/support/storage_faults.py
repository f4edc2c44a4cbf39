"""Storage faults: faults of disks and files, made by the operating system."""

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def files_bounded(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: a write beyond it fails with an input/output error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def small_disk(at: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a file system of a size in memory; skip the test if mounting is not permitted."""
    at.mkdir()
    mounted = subprocess.run(  # noqa: S603 - a fixed command
        ["/bin/mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(at)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a file system is not permitted here")
    try:
        yield at
    finally:
        subprocess.run(["/bin/umount", str(at)], check=True)  # noqa: S603 - a fixed command


def take_away(database: Path, how: str) -> None:
    """Remove a database's file, replace it by a copy, or move it with all its companion files."""
    if how == "moved":
        (database.parent / "elsewhere").mkdir()
        for file in database.parent.glob(f"{database.name}*"):
            file.rename(database.parent / "elsewhere" / file.name)
        return
    copy = database.read_bytes()
    database.unlink()
    if how == "replaced":
        database.write_bytes(copy)
