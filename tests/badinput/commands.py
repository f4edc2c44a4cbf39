"""Commands: runs `hooktide` in processes that are forked ready to run: a hundred mistakes in the time of three starts."""

import contextlib
import io
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from services.__main__ import COMPOSITION
from services.cli.app import run_app

_WITHIN_S = 60
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


@dataclass(frozen=True, slots=True)
class Told:
    """How a command ended, and what its user reads."""

    code: int
    out: str
    err: str


def told(*arguments: str, **variables: str) -> Told:
    """Run a command to its end, with no HOOKTIDE_ variables except `variables`."""
    ours, its = _context.Pipe(duplex=False)
    process = _context.Process(target=_run, args=(arguments, variables, its))
    process.start()
    its.close()
    try:
        assert ours.poll(_WITHIN_S), f"still running after {_WITHIN_S} s: {arguments}"
        code, out, err = ours.recv()
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()
    return Told(code, out, err)


def _run(arguments: Sequence[str], variables: Mapping[str, str], answer: Connection) -> None:
    """Run the command in the forked process, and send how it ended."""
    for name in [name for name in os.environ if name.startswith("HOOKTIDE_")]:
        del os.environ[name]
    os.environ.update(variables)
    sys.argv = ["hooktide", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_app(COMPOSITION)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    answer.send((code, out.getvalue(), err.getvalue()))
