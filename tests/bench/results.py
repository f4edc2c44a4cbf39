"""Results: the files that a run leaves in `bench-results/`."""

import json
import os
import platform
import sqlite3
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from tests.bench.rounds import Extent

_FOLDER = Path("bench-results")
_PACKAGES = ("aiohttp", "grpcio", "httptools", "uvloop")


def write(name: str, extent: Extent, found: Mapping[str, object], pictures: Mapping[str, str]) -> list[Path]:
    """Write the results and the description of the machine as JSON, and pictures (SVG by name); return the files."""
    _FOLDER.mkdir(exist_ok=True)
    began = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    written = [_FOLDER / f"{name}-{began}.json", *(_FOLDER / f"{picture}.svg" for picture in pictures)]
    text = json.dumps({"rounds": extent.rounds, "quick": extent.quick, "machine": _machine(), **found}, indent=2, ensure_ascii=False)
    for path, content in zip(written, [text, *pictures.values()], strict=True):
        path.write_text(content)
    return written


def _machine() -> dict[str, object]:
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
