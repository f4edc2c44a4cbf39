import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The words are written in parts, so that this file does not contain them.
MACHINE_PATHS = [r"/" + folder + r"/" for folder in ("root", "home", "work", "Users", "opt/wheels")]
REGISTRY_HOSTS = [
    re.escape(".".join(parts))
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("npmjs", "com"),
        ("docker", "io"),
        ("docker", "com"),
        ("ghcr", "io"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("deb", "debian", "org"),
    )
]
MACHINE = re.compile("|".join(rf"(?<![\w.-]){path}" for path in MACHINE_PATHS) + "|" + "|".join(rf"\b{host}\b" for host in REGISTRY_HOSTS))


def project_files() -> list[str]:
    """The files that are in the repository, or would be after an add."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so which files are the project's is unknown")
    answer = subprocess.run(  # noqa: S603 - git itself, with fixed arguments
        [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=30,
    )
    return [name for name in answer.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_machine_or_a_registry() -> None:
    """A lock file is an exception: it records the origin of each package."""
    found = []
    for name in project_files():
        if name == "uv.lock":
            continue
        text = (ROOT / name).read_bytes().decode("utf-8", errors="replace")
        found += [f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}" for match in MACHINE.finditer(text)]

    assert found == []


def test_what_a_run_leaves_behind_stays_out_of_the_repository() -> None:
    left = (".venv/", ".bootstrap/", "hooktide-data/", "secrets/", "__pycache__/", ".hypothesis/", "bench-results/")

    assert [name for name in project_files() if any(part in f"/{name}" for part in (f"/{folder}" for folder in left))] == []


def test_scripts_can_be_run_and_both_distributions_carry_the_licence() -> None:
    for script in (".ci/run", ".ci/setup"):
        assert (ROOT / script).stat().st_mode & 0o111, f"chmod +x {script}"
        assert (ROOT / script).read_text().startswith("#!/")
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "protos/LICENSE").read_bytes()
    for project in ("pyproject.toml", "protos/pyproject.toml"):
        assert 'license = "Apache-2.0"' in (ROOT / project).read_text()
