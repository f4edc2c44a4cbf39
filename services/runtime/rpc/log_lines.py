"""gRPC log lines: what the gRPC library writes to standard error by itself becomes lines of our log.

The library's core is C++ and writes to file descriptor 2 in Abseil's form (``E1130 11:05:02.374915 16478 call.cc:358] text``). Nothing
can be put in between but a pipe: descriptor 2 becomes its one end, and a thread reads the other. Our own log goes past it.

Law 1: a line that is not gRPC's is passed on as it is.
Law 2: whatever peers make gRPC write, at most `LINES_PER_S` lines a second are logged; the rest are counted.
A last line that gRPC writes as it aborts the process may be lost with the pipe.
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
    """Permits so many lines in each second. Pure: time (seconds, monotonic) is an argument."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._second = -1
        self._count = 0
        self._left_out = 0

    def permits(self, now_s: float) -> tuple[bool, int]:
        """Return whether a line may be logged now, and how many before it were not and have not been told of."""
        if int(now_s) != self._second:
            self._second, self._count = int(now_s), 0
        if self._count >= self._per_s:
            self._left_out += 1
            return False, 0
        self._count += 1
        told, self._left_out = self._left_out, 0
        return True, told


def capture_grpc_lines(monotonic: Callable[[], float] = time.monotonic) -> None:
    """Begin, for the rest of this process; call it before the log is set up. `sys.stderr` is the real one from then on as before."""
    real = os.dup(_STDERR)
    reading, writing = os.pipe()
    os.dup2(writing, _STDERR)
    os.close(writing)
    # By lines, each in one write, so that two threads never share a line.
    sys.stderr = io.TextIOWrapper(os.fdopen(real, "wb"), errors="backslashreplace", line_buffering=True)

    def run() -> None:
        try:
            _read(reading, real, LineLimit(LINES_PER_S), monotonic)
        finally:
            # Who writes to a pipe that nobody reads would wait for ever.
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
        # Most of what gRPC calls an error is a peer's doing.
        log = {"I": logger().debug, "F": logger().critical}.get(level, logger().warning)
        log("grpc.core", source=source, detail=text[:_LINE_BYTES_MAX], **more)
    return True
