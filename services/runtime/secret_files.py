"""Secret files: the value of a setting out of the file that ``<SETTING>_FILE`` names, so that no secret need stand in the environment.

Law: the value itself goes first; what stands in a file is never shown, whatever is wrong with it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from services.runtime.lifecycle import StartError
from services.runtime.shown import plainly_shown

_PREFIX = "HOOKTIDE_"
_BYTES_MAX = 64 * 1024


def read_secret(variable: str, path: str) -> str:
    """Return what stands in the file that a variable names, without the space around it; raises `StartError`."""
    where = f"{variable}={plainly_shown(path)}"
    try:
        with Path(path).open("rb") as file:
            content = file.read(_BYTES_MAX + 1)
        text = content.decode().strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise StartError(f"{where}: cannot be read: {why}; name a file that holds it") from error
    if not text or len(content) > _BYTES_MAX:
        raise StartError(f"{where}: the file {'is too large' if text else 'is empty'}; name one that holds it")
    return text


def with_secret_files(environ: Mapping[str, str], settings: Iterable[str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return the environment with these settings out of their files, the files by the variables they gave, and a line for each mistake."""
    completed, from_files, mistakes = dict(environ), dict[str, str](), list[str]()
    for name in settings:
        path = environ.get(f"{_PREFIX}{name}_FILE", "")
        if path and not environ.get(f"{_PREFIX}{name}", ""):
            try:
                completed[f"{_PREFIX}{name}"] = read_secret(f"{_PREFIX}{name}_FILE", path)
                from_files[f"{_PREFIX}{name}"] = path
            except StartError as error:
                mistakes.append(str(error))
    return completed, from_files, mistakes
