"""JSON text: what a user gives as JSON or as text is checked before it goes anywhere, and sent as it was written.

The ingest service checks again and more; here a mistake is told in terms of the option that holds it.
"""

import json
from typing import NoReturn

from services.cli.errors import CommandError


def checked_json(option: str, raw: bytes) -> bytes:
    """Return bytes that are JSON which every reader understands alike; raise `CommandError` for others."""
    try:
        json.loads(raw.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _refused(option, f"is not UTF-8: byte {error.start} begins no character") from error
    except _Doubtful as error:
        raise _refused(option, str(error)) from error
    except RecursionError as error:
        raise _refused(option, "is nested too deeply") from error
    except ValueError as error:
        raise _refused(option, f"is no JSON ({error}); text needs its double quotes, for example {option} '\"hello\"'") from error
    return raw


def checked_text(name: str, text: str) -> str:
    """Return an argument that is text; raise `CommandError` for bytes that are none."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise _refused(name, "is not UTF-8; check the terminal's encoding")
    return text


class _Doubtful(Exception):  # noqa: N818 - no error of ours: JSON that some readers accept
    """JSON that readers disagree on."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in members:
            message = f"has the name {name[:64]!a} twice in one object; keep one"
            raise _Doubtful(message)
        members[name] = value
    return members


def _refuse_constant(name: str) -> NoReturn:
    message = f"holds {name}, which JSON does not have; use null or a text"
    raise _Doubtful(message)


def _refused(option: str, why: str) -> CommandError:
    return CommandError(f"{option} {why}", code=2)
