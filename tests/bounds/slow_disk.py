"""Slow disk: runs one service, like `python -m services`, over a disk that writes only a number of bytes a second.

It uses SQLite's own hook for tests: every write of SQLite to a file takes as long as the disk would need for the bytes.
"""

import _sqlite3
import ctypes
import os
import sys
import time

from services.__main__ import main

BYTES_PER_S = "SLOW_DISK_BYTES_PER_S"
_METHODS = (
    *("xOpen", "xDelete", "xAccess", "xFullPathname", "xDlOpen", "xDlError", "xDlSym", "xDlClose", "xRandomness", "xSleep"),
    *("xCurrentTime", "xGetLastError", "xCurrentTimeInt64", "xSetSystemCall", "xGetSystemCall", "xNextSystemCall"),
)


class Vfs(ctypes.Structure):
    """SQLite's `sqlite3_vfs`, version 3."""

    _fields_ = (
        ("iVersion", ctypes.c_int),
        ("szOsFile", ctypes.c_int),
        ("mxPathname", ctypes.c_int),
        ("pNext", ctypes.c_void_p),
        ("zName", ctypes.c_char_p),
        ("pAppData", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in _METHODS),
    )


Pwrite = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, use_errno=True)
SetSystemCall = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Vfs), ctypes.c_char_p, ctypes.c_void_p)


def slow_down(bytes_per_s: float) -> object:
    """Let this process's SQLite write at most `bytes_per_s`; return what the caller must keep alive."""
    sqlite = ctypes.CDLL(_sqlite3.__file__)
    sqlite.sqlite3_vfs_find.restype = ctypes.POINTER(Vfs)
    vfs = sqlite.sqlite3_vfs_find(None)
    real = Pwrite(("pwrite64", ctypes.CDLL(None, use_errno=True)))

    def pwrite(file: int, data: int, size: int, offset: int) -> int:
        time.sleep(size / bytes_per_s)
        return int(real(file, data, size, offset))

    slow = Pwrite(pwrite)
    set_system_call = SetSystemCall(vfs.contents.xSetSystemCall)
    for name in (b"pwrite", b"pwrite64"):  # this SQLite has one or the other
        set_system_call(vfs, name, ctypes.cast(slow, ctypes.c_void_p))
    return slow


if __name__ == "__main__":
    keep = slow_down(float(os.environ[BYTES_PER_S])) if "ingest" in sys.argv else None
    main()
