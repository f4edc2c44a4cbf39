"""Writes the Python stubs of every .proto file into a folder (default: src).

Run it by `make protos`, which gives it an isolated environment with the pinned generator:
an older line on purpose, so that emitters are not forced to the newest protobuf.
"""

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).parent


def main(target: Path) -> int:
    """Generate all stubs below `target`; returns protoc's exit code."""
    target.mkdir(parents=True, exist_ok=True)
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("hooktide/**/*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    code: int = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{well_known}",
            *(f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")),
            *files,
        ]
    )
    for package in {(target / name).parent for name in files}:
        for folder in (package, package.parent):
            (folder / "__init__.py").touch()
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "src"))
