"""Log events: each has a name of the form `noun.what_happened`, and one level wherever it is logged."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORM = re.compile(r"[a-z]+(?:_[a-z]+)*\.[a-z]+(?:_[a-z]+)*")
# `exception` logs an error with its traceback.
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}


def levels() -> dict[str, set[str]]:
    """Return the levels of each event that a service logs by `logger().<level>("<event>", ...)`."""
    found: dict[str, set[str]] = {}
    for path in [*(ROOT / "services").rglob("*.py"), *(ROOT / "gateway").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Call(func=ast.Name(id="logger")), attr=method), args=[ast.Constant(value=str(name)), *_]
                ) if method in LEVELS:
                    found.setdefault(name, set()).add(LEVELS[method])
    return found


def test_an_event_is_named_by_a_noun_and_what_happened_to_it() -> None:
    names = levels()
    assert len(names) > 40, "the search finds the calls"
    assert [name for name in names if FORM.fullmatch(name) is None] == []


def test_an_event_has_one_level_wherever_it_is_logged() -> None:
    assert {name: found for name, found in levels().items() if len(found) > 1} == {}
