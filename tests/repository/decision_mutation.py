"""Decision mutation: changes the decisions of delivery one at a time, and counts the changes that their unit tests notice.

`make mutation` runs it; mutmut makes the changes in a copy of the project. A change that no test notices is printed by its name, and
`ARGS="--keep"` keeps the copy, in which `mutmut show NAME` shows it. The run ends after `--minutes`; what is not tried by then is counted.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.repository.decision_coverage import DECISIONS, ROOT, tests_of

_MUTMUT = ROOT / ".bootstrap/mutator/bin/mutmut"
_COPIED = ("services", "gateway", "protos", "tests")
_FILES = ("pyproject.toml", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
_RESULT = re.compile(r"^\s*(services\.\S+): (.+)$", re.MULTILINE)
_UNNOTICED = ("survived", "no tests", "suspicious")
_NOTICED = ("killed", "timeout", "caught by type check")
# Its unit tests start servers, so they are too slow to run for each change.
_LEFT_OUT = frozenset({"services/delivery/sinks/verification_protocol.py"})


def main() -> int:
    """Mutate; print the figure and what no test noticed; return the exit code."""
    parser = argparse.ArgumentParser(description="Change delivery's decisions one at a time, and count what no unit test notices.")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long to try at most")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--keep", action="store_true", help="keep the copy of the project")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="parts of the names of the modules to mutate; all if none is given")
    asked = parser.parse_args()
    chosen = [each for each in DECISIONS if each not in _LEFT_OUT and (not asked.modules or any(name in each for name in asked.modules))]
    copy = Path(tempfile.mkdtemp(prefix="hooktide-mutation-"))
    try:
        _copy_project(copy, chosen)
        _run(copy, asked.processes, asked.minutes * 60)
        return _report(copy)
    finally:
        if asked.keep:
            sys.stdout.write(f"mutation: the copy is in {copy}\n")
        else:
            shutil.rmtree(copy)


def _copy_project(copy: Path, modules: list[str]) -> None:
    for name in _COPIED:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _FILES:
        shutil.copy(ROOT / name, copy / name)
    tests = "\n    ".join(str(tests_of(module).relative_to(ROOT)) for module in modules)
    (copy / "setup.cfg").write_text(
        "[mutmut]\nsource_paths =\n    services\n"
        f"only_mutate =\n    {chr(10).join(f'    {module}' for module in modules).strip()}\n"
        f"also_copy =\n    {chr(10).join(f'    {name}' for name in ('gateway', 'protos', *_FILES)).strip()}\n"
        "pytest_add_cli_args =\n    -p\n    no:randomly\n    -q\n"
        f"pytest_add_cli_args_test_selection =\n    {tests}\n    -mnot slow\n"
        "track_dependencies = false\nuse_git_change_detection = false\n",
        encoding="utf-8",
    )


def _run(copy: Path, processes: int, within_s: float) -> None:
    # Hypothesis sets no deadline for an example if it sees this variable.
    environ = os.environ | {"CI": "true"}
    command = [str(_MUTMUT), "run", "--max-children", str(processes)]
    with (copy / "mutation.log").open("wb") as log:
        running = subprocess.Popen(command, cwd=copy, env=environ, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 - our own
        try:
            running.wait(within_s)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def _report(copy: Path) -> int:
    command = [str(_MUTMUT), "results", "--all", "true"]
    ended = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    results = dict(_RESULT.findall(ended.stdout))
    counts = Counter(results.values())
    noticed, unnoticed = (sum(counts[each] for each in kinds) for kinds in (_NOTICED, _UNNOTICED))
    if not noticed:
        sys.stdout.write((copy / "mutation.log").read_text(encoding="utf-8", errors="replace")[-3000:])
        return 1
    for name, result in results.items():
        if result in _UNNOTICED:
            sys.stdout.write(f"  {result}: {name}\n")
    share = noticed / (noticed + unnoticed)
    untried = len(results) - noticed - unnoticed
    sys.stdout.write(f"mutation: tests notice {noticed} of {noticed + unnoticed} changes ({share:.1%}); {untried} were not tried\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
