"""Log lines: turns the lines that the gRPC library writes to standard error into lines of our log.

The library's core is C++ and writes to file descriptor 2 in Abseil's form (``E1130 11:05:02.374915 16478 call.cc:358] text``). Only a
pipe can intercept these lines: descriptor 2 becomes its writing end, and a thread reads the other end. Our own log bypasses the pipe.

Law 1: a line that is not gRPC's is passed on as it is.
Law 2: at most `LINES_PER_S` lines a second are logged, however many peers make gRPC write; the rest are counted.
If gRPC aborts the process, its last line may be lost with the pipe.
"""

import io
import os
import re
import sys
import threading
import time
from collections.abc import Callable

from services.runtime.logs import logger

LINES_PER_S = 10
_READ_BYTES = 65_536
_LINE_BYTES_MAX = 8_192
_STDERR = 2
_ABSEIL = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ([^\]]{1,200})\] (.*)")


class LineLimit:
    """Permits `per_s` lines in each second. Pure: time (seconds, monotonic) is an argument."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._second = -1
        self._count = 0
        self._left_out = 0

    def permits(self, now_s: float) -> tuple[bool, int]:
        """Return whether a line may be logged now, and how many suppressed lines have not been reported yet."""
        if int(now_s) != self._second:
            self._second, self._count = int(now_s), 0
        if self._count >= self._per_s:
            self._left_out += 1
            return False, 0
        self._count += 1
        told, self._left_out = self._left_out, 0
        return True, told


def capture_grpc_lines(monotonic: Callable[[], float] = time.monotonic) -> None:
    """Capture the lines until the process ends. Call this before the log is set up. `sys.stderr` still writes to the real one."""
    real = os.dup(_STDERR)
    reading, writing = os.pipe()
    os.dup2(writing, _STDERR)
    os.close(writing)
    # Buffered by line: each line is one write, so that two threads never mix within a line.
    sys.stderr = io.TextIOWrapper(os.fdopen(real, "wb"), errors="backslashreplace", line_buffering=True)

    def run() -> None:
        try:
            _read(reading, real, LineLimit(LINES_PER_S), monotonic)
        finally:
            # A writer to a pipe that nobody reads would wait for ever.
            os.dup2(real, _STDERR)

    threading.Thread(target=run, name="grpc-log-lines", daemon=True).start()


def _read(reading: int, real: int, limit: LineLimit, monotonic: Callable[[], float]) -> None:
    rest = b""
    while chunk := os.read(reading, _READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_BYTES_MAX:
            lines.append(rest)
            rest = b""
        for line in lines:
            if not _log(line, limit, monotonic):
                os.write(real, line + b"\n")


def _log(line: bytes, limit: LineLimit, monotonic: Callable[[], float]) -> bool:
    """Log a line if it is gRPC's; return whether it is."""
    match = _ABSEIL.fullmatch(line.decode(errors="backslashreplace"))
    if match is None:
        return False
    level, source, text = match.groups()
    permitted, left_out = limit.permits(monotonic())
    if permitted:
        more = {"left_out": left_out} if left_out else {}
        # Peers cause most lines that gRPC calls errors, so these become warnings.
        log = {"I": logger().debug, "F": logger().critical}.get(level, logger().warning)
        log("grpc.core", source=source, detail=text[:_LINE_BYTES_MAX], **more)
    return True
