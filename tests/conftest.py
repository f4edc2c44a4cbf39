"""What holds for every test: its directory, in memory unless the test is about disks or measures them, and short tracebacks in logs."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from structlog.dev import ConsoleRenderer, plain_traceback

_TESTS = Path(__file__).parent
_ON_DISK = frozenset({"bench", "bounds", "e2e", "faults", "repository", "retention", "torture"})
_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of a random name is made in it
_FREE_BYTES_MIN = 1 << 30


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller choose the seeds of the simulation."""
    group = parser.getgroup("simulation")
    group.addoption("--seeds", type=int, default=1000, help="how many seeds the simulation plays")
    group.addoption("--seed", type=int, help="play this seed of the simulation alone")


def pytest_configure() -> None:
    """Log tracebacks as plain text: a coloured one with all variables takes half a second. Let generated examples take long."""
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")
    ConsoleRenderer.get_active().exception_formatter = plain_traceback


@pytest.fixture
def tmp_path(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory in memory, where a database's commits cost no time; pytest's own if there is no such memory."""
    folder = request.path.relative_to(_TESTS).parts[0]
    if folder in _ON_DISK or not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < _FREE_BYTES_MIN:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="hooktide-tests-", dir=_MEMORY) as name:
        yield Path(name)
