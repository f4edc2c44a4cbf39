"""Secret files: reads a setting from the file that ``<SETTING>_FILE`` names, so that no secret need be in the environment.

Law: a value in the setting itself has precedence. No error shows the content of a file.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path

from services.runtime.configuration.setting_types import PREFIX
from services.runtime.configuration.value_redaction import printable
from services.runtime.service_process import StartError

_BYTES_MAX = 64 * 1024
SECRET_KEY_BYTES = 32


def read_secret(variable: str, path: str) -> str:
    """Return the content of the file that a variable names, without surrounding space; raises `StartError`."""
    where = f"{variable}={printable(path)}"
    try:
        with Path(path).open("rb") as file:
            content = file.read(_BYTES_MAX + 1)
        text = content.decode().strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StartError(f"{where}: the file cannot be read: {why}; name a file with the value") from error
    if not text or len(content) > _BYTES_MAX:
        raise StartError(f"{where}: the file {'is too large' if text else 'is empty'}; name a file with the value")
    return text


def with_secret_files(environ: Mapping[str, str], settings: Iterable[str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return the environment completed from secret files, the file of each variable so completed, and a line for each mistake."""
    completed, from_files, mistakes = dict(environ), dict[str, str](), list[str]()
    for name in settings:
        path = environ.get(f"{PREFIX}{name}_FILE", "")
        if path and not environ.get(f"{PREFIX}{name}", ""):
            try:
                completed[f"{PREFIX}{name}"] = read_secret(f"{PREFIX}{name}_FILE", path)
                from_files[f"{PREFIX}{name}"] = path
            except StartError as error:
                mistakes.append(str(error))
    return completed, from_files, mistakes


def value_or_file(name: str, value: str, file: Path | None) -> tuple[str, str]:
    """Return a setting's value, and its origin for error messages; raises `StartError` if there is no value."""
    if value:
        return value, f"{PREFIX}{name}"
    if file is None:
        message = f"set {PREFIX}{name}, or name a file with its value in {PREFIX}{name}_FILE (`hooktide up` makes the value and sets it)"
        raise StartError(message)
    try:
        return file.read_text().strip(), f"{PREFIX}{name}_FILE: the content of {file}"
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        message = f"{PREFIX}{name}_FILE: cannot read {file}: {why}; name a file with the value"
        raise StartError(message) from error


def checked_secret_key(where: str, key_id: str, encoded: str) -> bytes:
    """Return a secret key (32 bytes) from its base64; raises `StartError`, which does not show the key."""
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not key_id or len(raw) != SECRET_KEY_BYTES:
        # The key itself is never shown. Without a colon, the whole key is in the place of the id.
        which = f"the key {key_id[:16]!a}" if encoded else "each key"
        message = f"{where}: {which} must be <key id>:<base64 of {SECRET_KEY_BYTES} bytes>"
        raise StartError(message)
    return raw
