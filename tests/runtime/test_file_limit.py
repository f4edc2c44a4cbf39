import json
import subprocess
import sys

import pytest

_PROGRAM = """
import json, resource, sys
from services.runtime.file_limit import connections_within, raise_file_limit
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
raised = raise_file_limit(wanted)
print(json.dumps([raised, resource.getrlimit(resource.RLIMIT_NOFILE)[0], connections_within("HOOKTIDE_X", 1_000)]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "raised", "connections"),
    [(64, 512, 4_096, 512, 384), (64, 4_096, 2_048, 2_048, 1_000), (512, 512, 256, 512, 384), (64, 64, 4_096, 64, 16)],
)
def test_the_file_limit_is_raised_as_far_as_permitted_and_connections_stay_below(
    soft: int, hard: int, wanted: int, raised: int, connections: int
) -> None:
    """The test runs in a process of its own, since no process may raise a lowered hard limit again."""
    command = [sys.executable, "-c", _PROGRAM, *map(str, (soft, hard, wanted))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - our own program
    assert json.loads(done.stderr.splitlines()[-1]) == [raised, raised, connections]
    assert ("file_limit.too_low" in done.stdout + done.stderr) is (connections < 1_000)
