"""Output: prints the commands' output: lines for people, JSON objects for programs."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TextIO

from rich.console import Console
from rich.text import Text

# Control characters, which a terminal would obey.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# The directory where uvx keeps the environments that it makes for one run.
_EPHEMERAL = re.compile(r"/archive-v\d+/")
# A part of a line: plain, or with a rich style.
Part = str | tuple[str, str]


def say(line: str) -> None:
    """Print a line for people."""
    _write(sys.stdout, line)


def warn(line: str) -> None:
    """Print a line to standard error."""
    _write(sys.stderr, line)


def say_styled(*parts: Part) -> None:
    """Print a line for people; in colours if the terminal has colours and NO_COLOR is not set."""
    _write_styled(sys.stdout, parts)


def warn_styled(*parts: Part) -> None:
    """Print a line to standard error; in colours as `say_styled`."""
    _write_styled(sys.stderr, parts)


def _write(file: TextIO, line: str) -> None:
    try:
        file.write(f"{line}\n")
        file.flush()
    except BrokenPipeError:
        _mute(file)


def _write_styled(file: TextIO, parts: tuple[Part, ...]) -> None:
    _Console(file=file, soft_wrap=True, highlight=False).print(Text.assemble(*parts), no_wrap=True, overflow="ignore", crop=False)
    try:
        file.flush()
    except BrokenPipeError:
        _mute(file)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        _mute(self.file)


def _mute(file: IO[str]) -> None:
    """Discard everything that is written from now on, and let the work go on: the reader is gone, as after `| head -1`."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, file.fileno())
    os.close(null)


def printable(text: str) -> str:
    """Return foreign text with escapes in place of control characters."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def program() -> str:
    """Return what to type in another terminal to run this program: its name, or a path if PATH does not have the name."""
    if _EPHEMERAL.search(sys.prefix):
        # PATH has its name here, but in no other terminal.
        return "uvx hooktide-server"
    if shutil.which("hooktide"):
        return "hooktide"
    path = Path(sys.argv[0]).absolute()
    return shlex.quote(str(path)) if os.access(path, os.X_OK) else f"{shlex.quote(sys.executable)} -m services"


def say_json(value: Mapping[str, object]) -> None:
    """Print one JSON object on a line of its own."""
    say(json.dumps(value, ensure_ascii=False))
