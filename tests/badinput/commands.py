"""Runs `hooktide` commands within this process: a hundred mistakes in the time of three processes."""

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.__main__ import COMPOSITION
from services.cli.app import run_app


@dataclass(frozen=True, slots=True)
class Told:
    """How a command ended, and what its user reads."""

    code: int
    out: str
    err: str


def told(*arguments: str, **variables: str) -> Told:
    """Run a command to its end, with no other HOOKTIDE_ variables than `variables`; it may start an event loop of its own."""
    codes: list[int] = []

    def run() -> None:
        try:
            run_app(COMPOSITION)
        except SystemExit as ended:
            codes.append(ended.code if isinstance(ended.code, int) else 1)

    out, err = io.StringIO(), io.StringIO()
    with _as_called(["hooktide", *arguments], variables), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(30)
    (code,) = codes
    return Told(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _as_called(arguments: list[str], variables: Mapping[str, str]) -> Iterator[None]:
    before, environ = sys.argv, dict(os.environ)
    sys.argv = arguments
    for name in environ:
        if name.startswith("HOOKTIDE_"):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        sys.argv = before
        os.environ.clear()
        os.environ.update(environ)
