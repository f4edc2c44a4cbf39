"""JSON text: checks JSON and text from the user before they are sent; they are sent as they were written.

The ingest service checks them again, and more strictly. Here an error names the option that holds the mistake.
"""

import json
from typing import NoReturn

from services.cli.errors import CommandError


def checked_json(option: str, raw: bytes) -> bytes:
    """Return the bytes if they are JSON that every reader understands alike; else raise `CommandError`."""
    try:
        json.loads(raw.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _refused(option, f"is not valid UTF-8 at byte {error.start}") from error
    except _Doubtful as error:
        raise _refused(option, str(error)) from error
    except RecursionError as error:
        raise _refused(option, "is nested too deeply; nest it less deeply") from error
    except ValueError as error:
        raise _refused(option, f"is not valid JSON ({error}); a string needs double quotes, for example {option} '\"hello\"'") from error
    return raw


def checked_text(name: str, text: str) -> str:
    """Return an argument if it is text; raise `CommandError` if it holds bytes that are not UTF-8."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise _refused(name, "is not UTF-8; check the terminal's encoding")
    return text


class _Doubtful(Exception):  # noqa: N818 - no error of ours: JSON that some readers accept
    """JSON that readers disagree on."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in members:
            message = f"has the name {name[:64]!a} twice in one object; keep one of them"
            raise _Doubtful(message)
        members[name] = value
    return members


def _refuse_constant(name: str) -> NoReturn:
    message = f"has {name}, which is not valid in JSON; use null or a string"
    raise _Doubtful(message)


def _refused(option: str, why: str) -> CommandError:
    return CommandError(f"{option} {why}", code=2)
