import ctypes
import subprocess
import sys

import pytest

from tests.system.processes import ROOT

_MESSAGES, _MESSAGE_BYTES, _PAGE_BYTES = 200, 600_000, 4096
# Makes and frees messages, one after the other; prints how many pages the system had to give for that.
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


def faults(how: str) -> int:
    command = [sys.executable, "-c", _PROGRAM, how]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)  # noqa: S603 - ours
    return int(ran.stdout)


def test_freed_memory_is_used_again_instead_of_being_asked_for_anew() -> None:
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library cannot be told")
    assert faults("kept") < 2 * 2 * _MESSAGE_BYTES / _PAGE_BYTES
    assert faults("as usual") > _MESSAGES * _MESSAGE_BYTES / _PAGE_BYTES / 2
