import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from services.runtime.rpc.log_lines import LINES_PER_S, LineLimit
from tests.support.system.processes import ROOT

_BEFORE = """
import asyncio, os, sys, time
from services.runtime.rpc.log_lines import capture_grpc_lines
from services.runtime.logs import configure_logs, logger
capture_grpc_lines()
configure_logs("test", "debug")
"""
# gRPC logs as an error that it refuses a compressed call.
_COMPRESSED = """
import grpc

async def main():
    server = grpc.aio.server(options=[("grpc.compression_enabled_algorithms_bitset", 1)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/a.B/C")(b"x" * 1000, compression=grpc.Compression.Gzip)
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(None)

asyncio.run(main())
"""
_FLOOD = """
for number in range(1000):
    os.write(2, b"E1130 11:05:02.374915   16478 call.cc:358] flood\\n")
"""
_OTHERS = """
os.write(2, b"Fatal Python error: somebody else\\n")
logger().info("ours")
print("from print", file=sys.stderr)
"""
# The process lives until its last line has come out of the pipe.
_AFTER = """
os.write(2, b"the last line\\n")
sys.stdin.read()
"""


def stderr_of(program: str) -> list[str]:
    command, pipe = [sys.executable, "-c", _BEFORE + program + _AFTER], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stderr=pipe, text=True) as process:  # noqa: S603 - ours
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line.rstrip("\n"))
            if lines[-1] == "the last line":
                break
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, "\n".join([*lines, rest])
    return lines + rest.splitlines()


def test_a_line_of_grpcs_own_is_a_line_of_our_log() -> None:
    lines = [line for line in stderr_of(_COMPRESSED) if "gzip" in line]
    assert lines
    assert all("service=test event=grpc.core source=" in line for line in lines)
    assert all("level=warning" in line for line in lines)


def test_a_flood_of_them_is_cut_and_counted() -> None:
    lines = [line for line in stderr_of(_FLOOD) if "grpc.core" in line]
    assert 1 <= len(lines) <= 3 * LINES_PER_S


def test_all_other_lines_stay_as_they_are() -> None:
    lines = stderr_of(_OTHERS)
    assert "Fatal Python error: somebody else" in lines
    assert "from print" in lines
    assert "the last line" in lines
    assert sum("service=test event=ours" in line for line in lines) == 1


@given(st.lists(st.floats(0, 0.4), min_size=1, max_size=200), st.integers(1, 20))
def test_every_line_that_is_left_out_is_told_of_later(rests_s: list[float], per_s: int) -> None:
    limit, now_s, told, left_out = LineLimit(per_s), 100.0, 0, 0
    seconds: dict[int, int] = {}
    for rest_s in rests_s:
        now_s += rest_s
        permitted, before = limit.permits(now_s)
        told += before
        if permitted:
            seconds[int(now_s)] = seconds.get(int(now_s), 0) + 1
        else:
            left_out += 1
    assert max(seconds.values()) <= per_s
    _, before = limit.permits(now_s + 1)
    assert told + before == left_out
