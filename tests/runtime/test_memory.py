import ctypes
import subprocess
import sys

import pytest

from services.runtime.memory import FREE_BYTES_MAX
from tests.support.system.processes import ROOT

_MESSAGES, _MESSAGE_BYTES, _PAGE_BYTES = 200, 600_000, 4096
# Makes and frees messages, one after the other; prints how many pages the system had to provide.
_PROGRAM = f"""
import resource, sys
from services.runtime.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
bytearray({_MESSAGE_BYTES})
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({_MESSAGES}):
    bytearray({_MESSAGE_BYTES}), bytearray({_MESSAGE_BYTES})
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


# Makes and frees many small pieces; prints how many bytes they took, and how many the process still has afterwards.
_PEAK_PROGRAM = """
import resource
from services.runtime.memory import give_back_free_memory, keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

keep_freed_memory()
before = resident()
pieces = [bytes(100_000) for _ in range(1000)]
taken = resident() - before
del pieces
first, second = give_back_free_memory(), give_back_free_memory()
print(taken, resident() - before, first, second)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", _PROGRAM, how]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)  # noqa: S603 - ours
    return int(ran.stdout)


def test_freed_memory_is_used_again_instead_of_being_asked_for_anew() -> None:
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library cannot be told")
    assert faults("kept") < 2 * 2 * _MESSAGE_BYTES / _PAGE_BYTES
    assert faults("as usual") > _MESSAGES * _MESSAGE_BYTES / _PAGE_BYTES / 2


def test_what_was_freed_after_a_peak_goes_back_to_the_system() -> None:
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("this C library cannot be asked")
    ran = subprocess.run([sys.executable, "-c", _PEAK_PROGRAM], cwd=ROOT, capture_output=True, check=True, text=True)  # noqa: S603 - ours
    taken, left, first, second = ran.stdout.split()
    assert int(taken) > 90_000_000
    assert int(left) < FREE_BYTES_MAX
    assert (first, second) == ("True", "False")
