"""Settings table: prints the settings as the rows of README.md's table: `python -m tests.repository.settings_table`."""

import sys
from pathlib import Path

from pydantic_core import PydanticUndefined

from services.runtime.configuration.common_settings import Settings
from services.runtime.configuration.setting_types import CONTENT_RELOADED, RELOADED
from services.runtime.configuration.settings import ALL
from services.runtime.configuration.settings_reader import variable

HEADER = ("| Variable | Read by | Default | What it is |", "|---|---|---|---|")


def rows() -> list[str]:
    """Return one row for each setting: first the settings that every service reads, then the others by service."""
    readers: dict[str, list[str]] = {}
    kinds: tuple[type[Settings], ...] = (Settings, *ALL)
    fields = {name: field for kind in kinds for name, field in kind.model_fields.items()}
    for kind in ALL:
        for name in kind.model_fields:
            readers.setdefault(name, []).append(kind.__name__.removesuffix("Settings").lower())
    table = []
    for name, field in fields.items():
        who = "all" if len(readers[name]) == len(ALL) else ", ".join(readers[name])
        mark = " ↻" if field.json_schema_extra in (RELOADED, CONTENT_RELOADED) else ""
        table.append(f"| `{variable(name)}`{mark} | {who} | {_shown(field.default)} | {field.description} |")
    return table


def _shown(default: object) -> str:
    assert default is not PydanticUndefined, "a setting without default would make a bare start impossible"
    match default:
        case None | "" | ():
            return "none"
        case tuple():
            return f"`{','.join(_number(part) for part in default)}`"
        case float():
            return f"`{_number(default)}`"
        case Path() | str() | int():
            return f"`{default}`"
        case other:
            message = f"no way to show {other!r}; add one"
            raise TypeError(message)


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.stdout.write("\n".join((*HEADER, *rows())) + "\n")
