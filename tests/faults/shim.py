"""Shim: builds `shim.c`, and controls the disk and the clock that it gives to a service.

To lose power, the tests kill every service and replace each database file with the contents of its shadow: only synced bytes, under
synced names. A disk may have kept any of the pages that were written and not synced, so a random share of their sectors
may be kept too.
"""

import ctypes
import mmap
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

SHADOWED = "FAULTS_SHADOWED"
"""The environment variable that names the watched directory."""
_SOURCE = Path(__file__).with_name("shim.c")
_PAGE = 4096
_SECTOR = 512
_SUFFIXES = ("", "-wal", "-shm", "-journal")
# clock_shift_ns, sync_errno, syncs_to_fail, write_errno, refused
_CONTROL = struct.Struct("qiiii")


def build_shim(directory: Path) -> Path | None:
    """Compile the shim; return None if there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    built = directory / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", str(built), str(_SOURCE), "-ldl"], check=True)  # noqa: S603 - found above
    return built


def attach(directory: Path, service: str) -> None:
    """Give this service, which must run with the shim preloaded, its disk and its clock."""
    shadows = directory / "shadows"
    shadows.mkdir(exist_ok=True)
    control = _control_file(directory, service)
    names = [str(each).encode() for each in (control, Path(os.environ[SHADOWED]), shadows)]
    code = ctypes.CDLL(None).faults_attach(*names)
    assert code == 0, os.strerror(code)


def _control_file(directory: Path, service: str) -> Path:
    """Return a service's control file; make it if it does not exist."""
    path = directory / f"{service}.control"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(bytes(_PAGE))
        part.replace(path)
    return path


class Control:
    """Controls the disk and the clock of one service."""

    def __init__(self, directory: Path, service: str) -> None:
        with _control_file(directory, service).open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _PAGE)

    def shift_clock(self, seconds: float) -> None:
        """Shift the wall clock that the service sees by some seconds from the true one."""
        self._write(0, int(seconds * 1e9))

    def fail_syncs(self, errno: int, times: int = -1) -> None:
        """Let the next `times` syncs fail with `errno` (-1: all of them); 0 lets them succeed again."""
        self._write(2, times)
        self._write(1, errno)

    def fail_writes(self, errno: int) -> None:
        """Let writes fail with `errno`; 0 lets them succeed again."""
        self._write(3, errno)

    def restore(self) -> None:
        """Let all writes and syncs succeed, and reset the clock."""
        for index in range(5):
            self._write(index, 0)

    @property
    def refused(self) -> int:
        """How many calls have failed on purpose."""
        return int(self._values()[4])

    def _values(self) -> tuple[int, ...]:
        return _CONTROL.unpack_from(self._memory)

    def _write(self, index: int, value: int) -> None:
        # Write one field at a time: the service may be counting in another field.
        offset, form = (0, "q") if index == 0 else (8 + 4 * (index - 1), "i")
        struct.pack_into(form, self._memory, offset, value)


def lose_power(directory: Path, data_dir: Path, *, kept: float, rng: random.Random) -> list[str]:
    """After every service was killed, leave of the database files only what a disk would hold.

    `kept` (0 to 1) is the share of unsynced sectors that survive all the same. Return what was lost, one line for each file.
    """
    shadows = directory / "shadows"
    synced = shadows / "names"
    names = dict(line.split() for line in synced.read_text().splitlines()) if synced.exists() else {}
    lost = []
    present = {path.name: path for path in data_dir.iterdir() if path.name.endswith(tuple(f".db{suffix}" for suffix in _SUFFIXES))}
    for name in sorted(present.keys() | names.keys()):
        path, key = data_dir / name, names.get(name)
        before = path.read_bytes() if path.exists() else b""
        if path.exists() and key is not None and key.split("-")[0] != str(path.stat().st_ino):
            before = b""  # another file of the same name, and its own name was not synced
        if key is None:
            path.unlink()
            lost.append(f"{name}: {len(before)} bytes, whose name was not synced")
            continue
        after = _on_disk(before, shadows / key, kept, rng)
        path.write_bytes(after)
        if after != before:
            changed = sum(before[at : at + _PAGE] != after[at : at + _PAGE] for at in range(0, max(len(before), len(after)), _PAGE))
            lost.append(f"{name}: {changed} pages, {len(before)} bytes before, {len(after)} after")
    shutil.rmtree(shadows)
    return lost


def _on_disk(present: bytes, shadow: Path, kept: float, rng: random.Random) -> bytes:
    image = shadow.with_suffix(".image")
    if not image.exists():
        return present  # neither written nor synced since the shadow began
    after = bytearray(image.read_bytes())
    dirty = shadow.with_suffix(".dirty").read_bytes()
    for at in _dirty_sectors(dirty, len(present)):
        if rng.random() < kept:
            if len(after) < at + _SECTOR:
                after.extend(bytes(min(at + _SECTOR, len(present)) - len(after)))
            after[at : at + _SECTOR] = present[at : at + _SECTOR]
    return bytes(after)


def _dirty_sectors(dirty: bytes, size: int) -> Iterator[int]:
    for page in range((size + _PAGE - 1) // _PAGE):
        if page < len(dirty) and dirty[page]:
            yield from range(page * _PAGE, min((page + 1) * _PAGE, size), _SECTOR)
