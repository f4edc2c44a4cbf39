"""Writes the Python stubs of every .proto file into src, or with --check says whether they are as they would be written.

Run it by `make protos`, which gives it an isolated environment with the pinned generator:
an older line on purpose, so that emitters are not forced to the newest protobuf.
"""

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).parent
SOURCE = ROOT / "src"
STUBS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def main(arguments: list[str]) -> int:
    """Write or check the stubs; returns 0, or else protoc's exit code, 1 for stubs that differ, 2 for wrong arguments."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: generate.py [--check]\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        code = generate(Path(folder))
        if code != 0:
            return code
        made, there = stubs(Path(folder)), stubs(SOURCE)
    differing = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    if not arguments:
        write({name: made.get(name) for name in differing})
        return 0
    for name in differing:
        sys.stderr.write(f"{name} is not what the .proto files say; run `make protos`\n")
    return 1 if differing else 0


def generate(target: Path) -> int:
    """Generate all stubs below `target`; returns protoc's exit code."""
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("hooktide/**/*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    outputs = (f"--{kind}{target}" for kind in ("python_out=", "grpc_python_out=", "mypy_out=quiet:", "mypy_grpc_out=quiet:"))
    # Those of this environment, wherever PATH leads.
    scripts = Path(sys.executable).parent
    plugins = (f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc"))
    code: int = protoc.main(["protoc", f"-I{ROOT}", f"-I{well_known}", *plugins, *outputs, *files])
    return code


def stubs(folder: Path) -> dict[Path, bytes]:
    """Return the generated files below `folder` by their paths within it."""
    return {path.relative_to(folder): path.read_bytes() for pattern in STUBS for path in folder.rglob(pattern)}


def write(changes: dict[Path, bytes | None]) -> None:
    """Write the changed stubs into the source folder, and remove those (None) whose .proto file is gone."""
    for name, content in changes.items():
        path = SOURCE / name
        if content is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        for package in (path.parent, path.parent.parent):
            (package / "__init__.py").touch()
        path.write_bytes(content)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
