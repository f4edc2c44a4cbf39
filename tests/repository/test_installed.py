"""Installed: both distributions as others install them: built, then installed with the lowest and with the newest dependencies.

The tests take packages from the package index by uv. Without an index they are skipped, but not in CI.
"""

import email
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import NoReturn
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONSUMER = Path(__file__).with_name("consumer.py")
WITHIN_S = 240
EMITTING = """
import hooktide
with hooktide.SyncEmitter("127.0.0.1:1", key="hkt_x", timeout=0.2) as emitter:
    try:
        emitter.emit(type="a", source="/b", data={"id": 7})
    except hooktide.Unavailable as error:
        print(f"{type(error).__module__}.{type(error).__name__}")
"""


@dataclass(frozen=True)
class Wheels:
    """The built wheels, with their metadata."""

    contract: Path
    server: Path

    @staticmethod
    def metadata(wheel: Path) -> Message:
        """Return a wheel's metadata, with the package page as its payload."""
        with ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            return email.message_from_bytes(archive.read(name))

    def others(self, *wheels: Path) -> list[str]:
        """Return the wheels' dependencies without the wheels themselves, since "lowest-direct" lowers only directly named dependencies."""
        wanted = [line for wheel in wheels for line in self.metadata(wheel).get_all("Requires-Dist", [])]
        return [line for line in wanted if not re.match(r"hooktide\b", line)]


def uv(*arguments: str | Path) -> None:
    """Run uv; if there is no package index, skip the test, or fail in CI."""
    own = ROOT / ".bootstrap" / "bin" / "uv"
    program = str(own) if own.exists() else shutil.which("uv")
    if program is None:
        unavailable("there is no uv; `make project` brings it")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=WITHIN_S, check=False)  # noqa: S603 - our own arguments
    if done.returncode != 0 and re.search(r"[Ff]ailed to fetch|error sending request|[Cc]onnect|network", done.stderr):
        unavailable(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def unavailable(why: str) -> NoReturn:
    """Skip the test, or fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    folder = tmp_path_factory.mktemp("wheels")
    uv("build", "--quiet", "--all-packages", "--wheel", "--out-dir", folder, "--directory", ROOT)
    (contract,), (server,) = folder.glob("hooktide-*.whl"), folder.glob("hooktide_server-*.whl")
    return Wheels(contract, server)


def environment(path: Path, resolution: str, *wanted: str | Path) -> Path:
    """Make a virtual environment with these packages and return its directory of commands."""
    uv("venv", "--quiet", "--python", sys.executable, path)
    uv("pip", "install", "--quiet", "--python", path / "bin" / "python", "--resolution", resolution, *wanted)
    return path / "bin"


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command in a directory without files of the repository, and return its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False, cwd=cwd)  # noqa: S603 - our own command
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
def test_the_demo_runs_on_the_lowest_and_on_the_newest_versions(wheels: Wheels, tmp_path: Path, resolution: str) -> None:
    """The test runs the command that is named like the distribution, as `uvx hooktide-server demo` does."""
    others = wheels.others(wheels.server, wheels.contract)
    commands = environment(tmp_path / "venv", resolution, wheels.server, wheels.contract, *others)

    assert re.search(r"demo: 20 emitted, .* 0 lost", run(commands / "hooktide-server", "demo", "--events", "20", cwd=tmp_path))


@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
def test_the_emitter_runs_alone_on_the_lowest_and_on_the_newest_versions(wheels: Wheels, tmp_path: Path, resolution: str) -> None:
    commands = environment(tmp_path / "venv", resolution, wheels.contract, *wheels.others(wheels.contract))

    assert run(commands / "python", "-c", EMITTING, cwd=tmp_path).strip() == "hooktide.Unavailable"


def test_a_service_that_emits_passes_mypy_strict_with_the_stub_packages_that_the_readme_names(wheels: Wheels, tmp_path: Path) -> None:
    stubs = re.findall(r"`(types-[\w-]+)`", (ROOT / "protos" / "README.md").read_text(encoding="utf-8"))
    assert stubs
    commands = environment(tmp_path / "venv", "highest", wheels.contract, "mypy", *stubs)
    shutil.copy(CONSUMER, tmp_path / "service.py")

    assert "no issues found" in run(commands / "mypy", "--strict", "service.py", cwd=tmp_path)


@pytest.mark.parametrize(("wheel", "title"), [("server", "# Hooktide"), ("contract", "# hooktide")])
def test_a_package_page_has_no_link_that_leads_nowhere(wheels: Wheels, wheel: str, title: str) -> None:
    page = wheels.metadata(getattr(wheels, wheel)).get_payload()
    assert isinstance(page, str)
    assert title in page
    for target in re.findall(r"\]\(([^)\s]*)\)", page):
        assert re.match(r"https?://|#", target), target


def test_with_a_repository_named_the_package_page_links_to_it(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    for package in ("services", "gateway"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    project = tmp_path / "pyproject.toml"
    urls = '[project.urls]\nSource = "https://forge.example/hooktide/"\n'
    project.write_text(project.read_text().replace("[project.scripts]", f"{urls}\n[project.scripts]"))
    uv("build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", "--directory", tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    made = Wheels.metadata(wheel)

    page = made.get_payload()
    assert made["Project-URL"] == "Source, https://forge.example/hooktide/"
    assert "](https://forge.example/hooktide/raw/main/docs/flow.svg)" in page
    assert "[ARCHITECTURE.md](https://forge.example/hooktide/blob/main/ARCHITECTURE.md)" in page
