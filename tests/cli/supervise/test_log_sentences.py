import ast
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.supervise.log_sentences import QUIET_S, SENTENCES, LogSentences

HEAD = "timestamp=2030-01-31T12:00:00.000000Z level=warning service=delivery "


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            HEAD + "event=circuit_breaker.opened subscription=sub_1 for_s=30.5",
            "the circuit breaker of subscription sub_1 opened after failures; the next attempt is in 30.5 s",
        ),
        (
            HEAD + 'event=access_token.failed subscription=sub_1 why="the server said \\"no\\""',
            'no access token could be fetched for subscription sub_1: the server said "no"',
        ),
        (
            HEAD + "event=lane.refill_failed subscription=sub_1 reason=UNAVAILABLE",
            "a warning, lane: refill failed (subscription sub_1, reason UNAVAILABLE)",
        ),
        (HEAD.replace("warning", "error") + "event=new.thing", "an error, new: thing"),
        (
            HEAD + 'event=rpc.failed method=/a exception="Traceback (most recent call last):\\n  File \\"a.py\\"\\nKeyError: 7"',
            "a warning, rpc: failed (method /a, KeyError: 7)",
        ),
        # This event is known, and one of its fields is missing.
        (HEAD + "event=circuit_breaker.opened subscription=sub_1", "a warning, circuit breaker: opened (subscription sub_1)"),
        ("level=WARNING logger=asyncio Executing took 0.2 s", "warning from asyncio: Executing took 0.2 s"),
        ("Traceback (most recent call last): level=error", "Traceback (most recent call last): level=error"),
    ],
)
def test_a_log_line_becomes_a_sentence(line: str, sentence: str) -> None:
    assert LogSentences().sentence(line, 0.0) == sentence


def test_a_kind_of_trouble_is_told_once_in_a_while_with_how_often_it_came() -> None:
    sentences = LogSentences()
    line = HEAD + "event=circuit_breaker.opened subscription=sub_1 for_s=30"
    assert sentences.sentence(line, 0.0) is not None
    assert [sentences.sentence(line, QUIET_S * part) for part in (0.1, 0.5, 0.9)] == [None, None, None]
    assert sentences.sentence(HEAD + "event=ledger.disk_full", QUIET_S * 0.9) is not None
    again = sentences.sentence(line, QUIET_S * 1.1)
    assert again is not None
    assert again.endswith(" (3 more like this since)")
    later = sentences.sentence(line, QUIET_S * 5)
    assert later is not None
    assert "more like this" not in later


@given(st.lists(st.text(), max_size=5))
def test_any_line_has_a_sentence_of_bounded_length(lines: list[str]) -> None:
    for number, line in enumerate(lines):
        told = LogSentences().sentence(line + "x" * 1000 * number, 0.0)
        assert told is not None
        assert len(told) < 400


def logged() -> dict[str, set[str]]:
    """Return the names of the events that the services log as warnings and errors, each with its fields."""
    found: dict[str, set[str]] = {}
    root = Path(__file__).parents[3]
    for path in [*(root / "services").rglob("*.py"), *(root / "gateway").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="warning" | "error" | "exception"), args=[ast.Constant(value=str(name)), *_]):
                    found.setdefault(name, set()).update(keyword.arg for keyword in node.keywords if keyword.arg)
    return found


def test_every_sentence_is_about_an_event_that_is_logged_with_those_fields() -> None:
    events = logged()
    for name, sentence in SENTENCES.items():
        wanted = {field for _, field, _, _ in string.Formatter().parse(sentence) if field}
        assert name in events, name
        assert wanted <= events[name], name
