"""Settings file: reads settings from a file, so that they can change while the process runs.

HOOKTIDE_SETTINGS_FILE names the file. It has one ``HOOKTIDE_NAME=value`` on each line, as Docker's env files. Empty lines and lines that
begin with ``#`` are skipped; quotes around a whole value are removed. A value in the environment has precedence.
"""

from collections.abc import Mapping
from pathlib import Path

from services.runtime.configuration.setting_types import PREFIX
from services.runtime.configuration.value_redaction import printable
from services.runtime.service_process import StartError

VARIABLE = "HOOKTIDE_SETTINGS_FILE"
_BYTES_MAX = 1024 * 1024
_QUOTES = ("'", '"')


def with_settings_file(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ`, completed by the settings of the file that it names.

    Raises `StartError`, with one line for each mistake, if the file cannot be read or holds anything but settings.
    """
    name = environ.get(VARIABLE, "")
    if not name:
        return dict(environ)
    values = _parsed(name, _read(name))
    return {**environ, **{key: value for key, value in values.items() if environ.get(key, "") == ""}}


def masked(environ: Mapping[str, str]) -> list[str]:
    """Return the settings of the file that have no effect because the environment has other values; raises as `with_settings_file`."""
    name = environ.get(VARIABLE, "")
    values = _parsed(name, _read(name)) if name else {}
    return sorted(key for key, value in values.items() if environ.get(key, "") not in {"", value})


def _read(name: str) -> str:
    try:
        path = Path(name)
        if path.stat().st_size > _BYTES_MAX:
            raise StartError(
                f"{VARIABLE}={printable(name)}: the file is larger than {_BYTES_MAX} bytes; name a file of HOOKTIDE_NAME=value lines"
            )
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        message = f"{VARIABLE}={printable(name)}: the file cannot be read: {why}; name a file of HOOKTIDE_NAME=value lines"
        raise StartError(message) from error


def _parsed(name: str, text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    mistakes = []
    for number, line in enumerate(text.splitlines(), 1):
        setting = line.strip()
        if not setting or setting.startswith("#"):
            continue
        key, equals, value = setting.partition("=")
        key = key.removeprefix("export ").strip()
        # A line may hold a secret, so an error shows only the name of a setting.
        if not equals or not key.startswith(PREFIX) or key == VARIABLE:
            mistakes.append(f"{VARIABLE}={printable(name)}: line {number} is not of the form HOOKTIDE_NAME=value")
        elif key in values:
            mistakes.append(f"{VARIABLE}={printable(name)}: line {number} sets {printable(key)} a second time; keep one of the two lines")
        else:
            values[key] = _unquoted(value.strip())
    if mistakes:
        raise StartError("\n  ".join(mistakes))
    return values


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] in _QUOTES and value[-1] == value[0]
    return value[1:-1] if is_quoted else value
