"""Settings reader: reads the settings of one service from the environment, its settings file and its secret files.

Each mistake is one line that says what to change. A misspelt variable is a mistake, whichever service's setting it nearly names.
"""

import difflib
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.secret_files import with_secret_files
from services.runtime.configuration.service_links import without_service_links
from services.runtime.configuration.setting_types import PREFIX, RELOADED
from services.runtime.configuration.settings import ALL, CLIENT_VARIABLES
from services.runtime.configuration.settings_file import with_settings_file
from services.runtime.configuration.value_redaction import printable
from services.runtime.service_process import StartError

_Read = TypeVar("_Read", bound=Settings)


def read_settings(kind: type[_Read], environ: Mapping[str, str] | None = None) -> _Read:
    """Read the settings of one service from the environment.

    The file that `HOOKTIDE_SETTINGS_FILE` names completes the environment. Raises `StartError` with one line for each mistake: a value out
    of its limits, or a name that begins with HOOKTIDE_ and is neither a setting nor set by Kubernetes.
    """
    environ = without_service_links(with_settings_file(os.environ if environ is None else environ))
    own = [name.removesuffix("_file").upper() for name in kind.model_fields if name.endswith(("_url_file", "_proxy_file"))]
    environ, from_files, mistakes = with_secret_files(environ, own)
    mistakes += misspelt(environ)
    values = {name: environ[variable(name)] for name in kind.model_fields if environ.get(variable(name), "") != ""}
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        mistakes += [_mistake(detail, from_files) for detail in error.errors(include_url=False)]
    if mistakes:
        raise StartError("\n  ".join(mistakes))
    return settings


def reloaded_fields(kind: type[Settings]) -> frozenset[str]:
    """Return the fields that SIGHUP reads anew."""
    return frozenset(name for name, field in kind.model_fields.items() if field.json_schema_extra == RELOADED)


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """Return a line for each HOOKTIDE_ variable that no service knows, with the nearest known name."""
    known = {variable(name) for kind in ALL for name in kind.model_fields} | CLIENT_VARIABLES
    lines = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            # The common prefix is left out, since it would make any two names similar.
            near = difflib.get_close_matches(name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], n=1)
            lines.append(f"{name} is not a setting" + (f"; did you mean {PREFIX}{near[0]}?" if near else "; see the table in README.md"))
    return lines


def _mistake(detail: Any, from_files: Mapping[str, str]) -> str:  # noqa: ANN401 - pydantic's own dictionary
    field = str(detail["loc"][0]) if detail["loc"] else ""
    text = str(detail["msg"]).removeprefix("Value error, ")
    if variable(field) in from_files:
        return f"{variable(field)}_FILE={printable(from_files[variable(field)])}: the content of the file {text}"
    return f"{variable(field)}={printable(str(detail['input']))}: {text}"
