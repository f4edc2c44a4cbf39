"""Strict JSON: parses an object that all readers understand alike, or raises a failure that says where the JSON is wrong.

request_body → [strict_json] → translate

Law 1: pure.
Law 2: JSON that readers could understand in two ways is refused: duplicate names, numbers that JSON does not have, lone surrogates,
encodings other than UTF-8.
Law 3: depth is measured before anything recurses.
"""

import itertools
import json
import math
import re
from collections import Counter
from typing import NamedTuple, NoReturn

from services.runtime.errors import Failure, FieldError, Reason

DEPTH_MAX = 64
_SHOWN_CHARS_MAX = 64

# A string, complete or cut off at the end. The pattern matches at every quotation mark, so the scan is linear.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
# Each opening bracket becomes 2 and each closing bracket 0; minus one, that is its step in depth.
_STEPS = bytes.maketrans(b"[{]}", bytes((2, 2, 0, 0)))
_SURROGATE = re.compile("[\ud800-\udfff]")
# Text in UTF-8 holds no surrogates, so only an escape can produce one.
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Place(NamedTuple):
    """The place of a value in the body."""

    within: "_Place | None"
    name: str | int


def parse_object(raw: bytes) -> dict[str, object]:
    """Return the JSON object in `raw`; for anything else raise `Failure` MALFORMED_BODY, which says where it is wrong."""
    if _depth(raw) > DEPTH_MAX:
        raise malformed(f"The body is nested deeper than {DEPTH_MAX} levels; nest it less deeply.")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise malformed(f"The body is not valid UTF-8 at byte {error.start}.") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise malformed(f"The body is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except ValueError:
        # The interpreter refuses to convert integers of more than a few thousand digits.
        raise malformed("The body has a number with too many digits; send a shorter number.") from None
    if not isinstance(value, dict):
        raise malformed("The body must be a JSON object.")
    if _SURROGATE_ESCAPE.search(raw):
        _refuse_surrogates(value)
    return value


def _depth(raw: bytes) -> int:
    """Return the depth of nesting. For invalid JSON, return at least the depth that a parser would reach before it stops."""
    steps = _STRING.sub(b"", raw).translate(_STEPS, _NO_BRACKETS)
    return max(itertools.accumulate(map((-1).__add__, steps)), default=0)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise malformed(f"An object in the body has the member {_shown(twice)} twice; send it once.")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise malformed(f"The body has {name}, which is not valid in JSON.")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise malformed(f"The body has the number {_shown(digits)}, which is out of range.")
    return number


def _refuse_surrogates(body: dict[str, object]) -> None:
    """Walk the body; the pointer is built only for a value that is refused."""
    rest: list[tuple[_Place | None, object]] = [(None, body)]
    while rest:
        place, value = rest.pop()
        if isinstance(value, str) and _SURROGATE.search(value):
            pointer = _pointer(place)
            raise malformed(
                f"The string at {_shown(pointer)} has half of a surrogate pair; send a complete character.",
                FieldError(pointer, "is not valid Unicode text"),
            )
        if isinstance(value, dict):
            for name in value:
                if _SURROGATE.search(name):
                    raise malformed(f"The name of the member {_shown(name)} has half of a surrogate pair; send a complete character.")
            rest += [(_Place(place, name), member) for name, member in value.items()]
        elif isinstance(value, list):
            rest += [(_Place(place, index), item) for index, item in enumerate(value)]


def _pointer(place: _Place | None) -> str:
    tokens: list[str] = []
    while place is not None:
        tokens.append(pointer_token(str(place.name)))
        place = place.within
    return "".join(f"/{token}" for token in reversed(tokens))


def pointer_token(name: str) -> str:
    """Return a member's name in the form of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _shown(text: str) -> str:
    """Return the client's text in a form that a sentence may show: ASCII, and short."""
    return json.dumps(text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}…")


def malformed(message: str, *fields: FieldError) -> Failure:
    """Return the failure for a body that is not the JSON object it should be."""
    return Failure(Reason.MALFORMED_BODY, message, fields=fields)
