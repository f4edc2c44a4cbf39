import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.ingest.event_validation import EventRefusal, check_json
from services.runtime.errors import Reason
from tests.ingest.json_model import DEPTH_MAX, is_acceptable

PIECES = [
    '"',
    '"',
    ":",
    ",",
    "{",
    "}",
    "[",
    "]",
    " ",
    "\n",
    "\\",
    "\\u0061",
    "a",
    "b",
    "1",
    "-",
    ".",
    "e",
    "null",
    "\\ud83d",
    "\\ude00",
    "\x00",
]
SPACE = st.sampled_from(["", "", "", " ", "\t\n", "\r  "])


def accepts(data: bytes) -> bool:
    try:
        check_json(data)
    except EventRefusal:
        return False
    return True


def escaped(text: str, how: list[int]) -> str:
    """Write a string; `how` says for each character whether and how it is escaped."""
    parts = []
    for char, way in zip(text, how, strict=False):
        if way == 0 or char in '"\\' or char < " ":
            parts.append(json.dumps(char)[1:-1])
        elif way == 1:
            parts.append(char)
        else:
            units = char.encode("utf-16-be").hex()
            parts += [f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4)]
    return '"' + "".join(parts) + '"'


# Names that are easily equal, and names that contain what the end of a name looks like.
NAMES = st.text(st.sampled_from('ab":, \\u{é😀'), max_size=3)
STRINGS = st.builds(escaped, NAMES, st.lists(st.integers(0, 2), min_size=3, max_size=3))
SCALARS = st.one_of(STRINGS, st.sampled_from(["0", "-1.5e3", "1e308", "1E400", "12345678901234567890123", "true", "null", "NaN", "01"]))


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    members = draw(st.lists(st.tuples(SPACE, STRINGS, SPACE, SPACE, values, SPACE), max_size=4))
    return "{" + ",".join(f"{a}{name}{b}:{c}{value}{d}" for a, name, b, c, value, d in members) + "}"


@st.composite
def arrays(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    return "[" + ",".join(a + value + b for a, value, b in draw(st.lists(st.tuples(SPACE, values, SPACE), max_size=3))) + "]"


DOCUMENTS = st.recursive(SCALARS, lambda values: objects(values) | arrays(values), max_leaves=12)


@settings(max_examples=300)
@given(DOCUMENTS)
@example('{"a":1,"a":2}')
@example('{"a":1,"\\u0061":2}')
@example('{"a" :1,"a":2}')
@example('{"x":{"a":1,"a":2}}')
@example('[{"a":"\\":"},{"a":"\\" :"}]')
@example('{"a":"\\":","a":"b"}')
@example('{"a":"\\u0022:","a":"b"}')
@example('{"\\":":1,"\\":":2}')
@example('{":":":",":a":":"}')
@example('{"é":1,"e\\u0301":2}')
@example('{"\\ud83d\\ude00":1,"😀":2}')
def test_json_is_accepted_as_the_exact_model_does(text: str) -> None:
    assert accepts(text.encode()) is is_acceptable(text.encode())


@settings(max_examples=300)
@given(DOCUMENTS, st.lists(st.tuples(st.integers(0, 400), st.booleans(), st.sampled_from(PIECES)), max_size=3))
def test_json_with_a_slip_in_it_is_judged_as_the_exact_model_does(text: str, slips: list[tuple[int, bool, str]]) -> None:
    for at, replaces, piece in slips:
        before, after = text[: at % (len(text) + 1)], text[at % (len(text) + 1) :]
        text = before + piece + after[replaces:]
    assert accepts(text.encode()) is is_acceptable(text.encode())


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_any_text_is_judged_as_the_exact_model_does(text: str) -> None:
    assert accepts(text.encode()) is is_acceptable(text.encode())


@settings(max_examples=300)
@given(st.binary(max_size=20) | DOCUMENTS.map(str.encode).flatmap(lambda data: st.binary(max_size=2).map(lambda more: data[:-1] + more)))
def test_any_bytes_are_judged_as_the_exact_model_does(data: bytes) -> None:
    assert accepts(data) is is_acceptable(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        "{}".encode("utf-32"),
        b"NaN",
        b"-Infinity",
        b"[1e400]",
        b"9" * 400,
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\xc0\xa2"',
        b"'a'",
        b"{a:1}",
        b"[1,]",
        b'{"a":1,}',
        b"// a\n1",
        b"1 2",
        b'"\n"',
        b"\x0c1",
        b"+1",
        b".5",
        b"1.",
        b"0x1",
        b'"\\x41"',
        b"True",
    ],
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    assert not is_acceptable(data)
    assert not accepts(data)


@pytest.mark.parametrize("data", [b"null", b' "" ', b"0", b"-0", b"1e-400", b"[]", b"{}", b'"\\u0000"', b'"\x7f"', b"18446744073709551616"])
def test_what_is_json_is_accepted(data: bytes) -> None:
    assert is_acceptable(data)
    assert accepts(data)


@pytest.mark.parametrize("escape", ["", '"\\u0061"'])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded_at_one_depth(opening: str, closing: str, escape: str) -> None:
    """The depth is the same for every check of the data, and below the interpreter's own limits."""
    for depth in (1, DEPTH_MAX, DEPTH_MAX + 1, 1023, 1024, 1025, 10_000, 100_000):
        data = (opening * depth + (escape or "1") + closing * depth).encode()
        assert accepts(data) is (depth <= DEPTH_MAX), depth


@pytest.mark.parametrize("last", ['"\\u0061":1', '"z":1,"z":2'])
def test_many_names_are_compared_in_little_time(last: str) -> None:
    """If each name were compared with each other name, everyone else would wait for minutes."""
    names = ",".join(f'"n{number}":1' for number in range(100_000))
    started = time.process_time()
    assert accepts(f"{{{names},{last}}}".encode()) is ("z" not in last)
    assert time.process_time() - started < 5


def test_the_refusal_names_the_name_and_stays_short() -> None:
    name = "n" * 5000
    with pytest.raises(EventRefusal) as caught:
        check_json(f'{{"{name}":1,"{name}":2}}'.encode())
    refusal = caught.value
    assert (refusal.reason, refusal.field) == (Reason.INVALID_ARGUMENT, "data")
    assert refusal.message == f"data: has the name '{name[:64]}' twice in one object; keep one of them"
