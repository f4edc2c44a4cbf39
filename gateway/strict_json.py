"""Strict JSON: an object as all readers would understand it, or a failure that says where it is none.

bodies → [strict JSON] → translate

Law 1: pure.
Law 2: what readers could understand in two ways is refused: duplicate names, numbers that JSON does not have,
lone surrogates, other encodings than UTF-8.
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

# A string, complete or cut off at the end: it always matches where a quotation mark stands, so the scan is linear.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
# Each opening bracket becomes 2 and each closing one 0, so that one less is its step in depth.
_STEPS = bytes.maketrans(b"[{]}", bytes((2, 2, 0, 0)))
_SURROGATE = re.compile("[\ud800-\udfff]")
# As text in UTF-8 holds none, only an escape can stand for one.
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Place(NamedTuple):
    """Where a value of the body stands."""

    within: "_Place | None"
    name: str | int


def parse_object(raw: bytes) -> dict[str, object]:
    """Return the JSON object that `raw` is; raise `Failure` MALFORMED_BODY, saying where, for anything else."""
    if _depth(raw) > DEPTH_MAX:
        raise malformed(f"The body is nested deeper than {DEPTH_MAX} levels.")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise malformed(f"The body is not UTF-8: byte {error.start} begins no character.") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise malformed(f"The body is no JSON: line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except ValueError:
        # The interpreter converts integers of a few thousand digits only.
        raise malformed("The body holds a number of too many digits.") from None
    if not isinstance(value, dict):
        raise malformed("The body must be a JSON object.")
    if _SURROGATE_ESCAPE.search(raw):
        _refuse_surrogates(value)
    return value


def _depth(raw: bytes) -> int:
    """Return the depth of nesting; of what is no JSON, at least the depth up to where a parser would stop."""
    steps = _STRING.sub(b"", raw).translate(_STEPS, _NO_BRACKETS)
    return max(itertools.accumulate(map((-1).__add__, steps)), default=0)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise malformed(f"An object of the body has the member {_shown(twice)} twice.")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise malformed(f"The body holds {name}, which JSON does not have.")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise malformed(f"The body holds the number {_shown(digits)}, which is out of range.")
    return number


def _refuse_surrogates(body: dict[str, object]) -> None:
    """Walk the body; where each value stands is put together only for the one that is refused."""
    rest: list[tuple[_Place | None, object]] = [(None, body)]
    while rest:
        place, value = rest.pop()
        if isinstance(value, str) and _SURROGATE.search(value):
            pointer = _pointer(place)
            raise malformed(f"The text at {_shown(pointer)} holds half of a surrogate pair.", FieldError(pointer, "is no Unicode text"))
        if isinstance(value, dict):
            for name in value:
                if _SURROGATE.search(name):
                    raise malformed(f"The member {_shown(name)} has half of a surrogate pair in its name.")
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
    """Return a member's name as it stands in a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _shown(text: str) -> str:
    """Return a text of the client's as a sentence may show it: ASCII, and short."""
    return json.dumps(text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}…")


def malformed(message: str, *fields: FieldError) -> Failure:
    """Return the failure for a body that is no JSON object."""
    return Failure(Reason.MALFORMED_BODY, message, fields=fields)
