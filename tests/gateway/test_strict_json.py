import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.strict_json import DEPTH_MAX, parse_object
from services.runtime.errors import Failure, Reason

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5), max_leaves=30)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=8)


def refused(raw: bytes) -> str:
    """Return the sentence with which a body is refused."""
    with pytest.raises(Failure) as caught:
        parse_object(raw)
    assert caught.value.reason is Reason.MALFORMED_BODY
    return caught.value.message


@given(OBJECTS, st.booleans(), st.sampled_from([None, 2]))
def test_every_json_object_is_read_as_it_is(value: dict[str, object], ascii_only: bool, indent: int | None) -> None:  # noqa: FBT001 - drawn
    assert parse_object(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_malformed_body(raw: bytes) -> None:
    try:
        parse_object(raw)
    except Failure as failure:
        assert failure.reason is Reason.MALFORMED_BODY  # noqa: PT017 - either outcome is right


@given(st.lists(st.sampled_from(['"', "\\", "{", "}", "[", "]", ":", ",", "a", "\\u0041", "1", " ", "\n"]), max_size=60))
def test_whatever_looks_like_json_never_fails_otherwise(parts: list[str]) -> None:
    raw = "".join(parts).encode()
    try:
        expected = json.loads(raw)
    except ValueError:
        refused(raw)
        return
    if isinstance(expected, dict):
        assert parse_object(raw) == expected
    else:
        refused(raw)


@given(st.integers(1, 200), st.booleans())
def test_the_depth_that_counts_is_that_of_the_brackets_outside_texts(depth: int, lists: bool) -> None:  # noqa: FBT001 - drawn
    opening, closing = ("[", "]") if lists else ('{"a":', "}")
    raw = ('{"x":' + opening * depth + '"[[[[{{{{\\"["' + closing * depth + "}").encode()
    if depth + 1 > DEPTH_MAX:
        assert "deeper than 64 levels" in refused(raw)
    else:
        assert list(parse_object(raw)) == ["x"]


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":', b'["', b'"\\'])
def test_a_hundred_thousand_levels_neither_overflow_nor_take_long(opening: bytes) -> None:
    refused(b'{"x":' + opening * 100_000)


@pytest.mark.parametrize("filler", [b'\\"', b"\\", b'"', b"[]", b'""', b"]", b"[]{},"])
def test_the_depth_of_a_mebibyte_of_anything_is_measured_in_linear_time(filler: bytes) -> None:
    """A parser that backtracks over half a million unclosed quotation marks would take hours."""
    refused(b'{"x":"' + filler * (1024 * 1024 // len(filler)))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "line 1, column 1"),
        (b'{"a": 1,\n "b" 2}', "line 2, column 6"),
        (b'{"a": 1} x', "line 1, column 10"),
        (b'{"a":1,"a":2}', 'the member "a" twice'),
        (b'{"c":[{"a":1,"b":2,"b":2}]}', 'the member "b" twice'),
        (b'{"a":1,"\\u0061":2}', 'the member "a" twice'),
        (b'{"a":NaN}', "NaN, which is not valid in JSON"),
        (b'{"a":-Infinity}', "-Infinity, which is not valid in JSON"),
        (b'{"a":1e999}', "1e999"),
        (b'{"a":' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"a":["\\ud800"]}', '"/a/0" has half of a surrogate pair'),
        (b'{"a/b~":"\\udc00 \\ud800"}', '"/a~1b~0" has half'),
        (b'{"\\udfff":1}', "The name of the member"),
        (b'{"a":"\xff"}', "not valid UTF-8 at byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "not valid UTF-8 at byte 6"),
        ('{"a":1}'.encode("utf-16"), "not valid UTF-8"),
        (b'\xef\xbb\xbf{"a":1}', "BOM"),
        (b'{"a":"\x00"}', "line 1, column 7"),
        (b"[1]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
    ],
)
def test_what_is_no_json_object_is_refused_saying_where(raw: bytes, words: str) -> None:
    assert words in refused(raw)


def test_a_pair_of_surrogates_is_the_character_it_stands_for() -> None:
    assert parse_object(b'{"a":"\\ud83c\\udf0a"}') == {"a": "🌊"}


def test_a_long_name_with_many_values_below_it_costs_its_length_once() -> None:
    """If the path of each value were written out, this body of a mebibyte would take 100 GB."""
    name = "n" * 400_000
    raw = ('{"' + name + '":[' + "1," * 250_000 + '"\\ud83c\\udf0a"]}').encode()
    assert len(parse_object(raw)[name]) == 250_001  # type: ignore[arg-type]  # it is a list
    assert len(refused(raw.replace(b"\\udf0a", b""))) < 200


def test_a_sentence_shows_at_most_the_beginning_of_a_long_name() -> None:
    assert len(refused(b'{"' + b"a" * 10_000 + b'":1,"' + b"a" * 10_000 + b'":2}')) < 200
