"""Output: what commands print: lines for people, JSON objects for programs."""

import json
import sys
from collections.abc import Mapping


def say(line: str) -> None:
    """Print a line for people."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say_json(value: Mapping[str, object]) -> None:
    """Print one JSON object on a line of its own."""
    say(json.dumps(value, ensure_ascii=False))


def warn(line: str) -> None:
    """Print a line to standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
