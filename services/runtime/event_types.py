"""Event types: which names an event may have as its `type`, and which patterns a subscription may ask for.

Ingest, the catalogue, subscriptions and routing use the same rules, so consumers can subscribe by name to every event type that emitters
can emit.

Law 1: pure.
Law 2: a type holds no `*`, so a pattern is either one exact type or a family, never both.
Law 3: types that begin with `hooktide.` are Hooktide's own notices. No emitter publishes them, and only a subscription that names them
gets them: `*`, and a subscription without types, do not match.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

EVENT_TYPE_BYTES_MAX = 256
EVERY_TYPE = "*"
RESERVED_PREFIX = "hooktide."
"""The types of Hooktide's own notices begin with this. A subscription gets them only if it names them."""
RESERVED_SOURCE_PREFIX = "/hooktide/"
"""The sources of Hooktide's own notices begin with this; the id of the registry follows."""
_FAMILY = ".*"
_RESERVED = "is reserved for Hooktide's own notices"
# No type begins with this noncharacter, so that every type is below it.
_ABOVE_ALL = "\U0010ffff"
# CloudEvents 1.0.2, type String: no control characters, no noncharacters, no lone surrogates.
_NONCHARACTERS = "".join(chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF))
FORBIDDEN_CHARACTERS = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NONCHARACTERS}]")


def event_type_problem(name: str) -> str | None:
    """Return what is wrong with an event type, None if it is valid."""
    if not name:
        return "is required"
    if FORBIDDEN_CHARACTERS.search(name):
        return "has control characters or noncharacters; remove them"
    if len(name) > EVENT_TYPE_BYTES_MAX or len(name.encode()) > EVENT_TYPE_BYTES_MAX:
        return f"is longer than {EVENT_TYPE_BYTES_MAX} bytes; make it shorter"
    return star_problem(name)


def star_problem(name: str) -> str | None:
    """Return why an event type with a `*` is refused, None if the name has none."""
    return "must not contain *, which is reserved for patterns such as order.*" if "*" in name else None


def is_reserved(name: str) -> bool:
    """Return whether an event type, or a pattern, is one of Hooktide's own notices."""
    return name.startswith(RESERVED_PREFIX)


def reserved_type_problem(name: str) -> str | None:
    """Return why nobody but Hooktide may use an event type, None if anybody may."""
    return f"begins with {RESERVED_PREFIX}, which {_RESERVED}; choose another name" if is_reserved(name) else None


def reserved_source_problem(source: str) -> str | None:
    """Return why nobody but Hooktide may use a source, None if anybody may."""
    reserved = source.startswith(RESERVED_SOURCE_PREFIX)
    return f"begins with {RESERVED_SOURCE_PREFIX}, which {_RESERVED}; choose another source" if reserved else None


def event_type_pattern_problem(pattern: str) -> str | None:
    """Return what is wrong with a subscription's pattern, None if it is valid.

    A pattern is an exact type, a family (``order.*``: all types below ``order.``), or ``*`` for every type. It has at most 256 bytes.
    """
    if pattern == EVERY_TYPE:
        return None
    if not pattern.isascii() and len(pattern.encode(errors="surrogatepass")) > EVENT_TYPE_BYTES_MAX:
        return _pattern_advice()
    name = pattern.removesuffix(_FAMILY)
    return _pattern_advice() if len(pattern) > EVENT_TYPE_BYTES_MAX or event_type_problem(name) else None


def _pattern_advice() -> str:
    return f"must be a name such as order.created, a pattern such as order.*, or *, of at most {EVENT_TYPE_BYTES_MAX} bytes"


def patterns_of(event_type: str) -> Iterator[str]:
    """Yield every pattern that a type matches: its name, ``a.*`` for each segment above it, and ``*`` unless the type is reserved."""
    yield event_type
    end = event_type.rfind(".")
    while end > 0:
        yield event_type[:end] + _FAMILY
        end = event_type.rfind(".", 0, end)
    if not is_reserved(event_type):
        yield EVERY_TYPE


class TypeRanges(NamedTuple):
    """The types that match some patterns, as a database compares them: by code points, which is also the order of their UTF-8 bytes."""

    names: tuple[str, ...]
    """Exact types, outside of all ranges, sorted."""
    ranges: tuple[tuple[str, str], ...]
    """Each from its first text, inclusive, to its last, exclusive; sorted and disjoint."""


def type_ranges(patterns: Sequence[str]) -> TypeRanges:
    """Return the types that match at least one of a subscription's patterns, as `patterns_of` has it; no patterns: as for `*`."""
    names, ranges = set[str](), set[tuple[str, str]]()
    for pattern in patterns or (EVERY_TYPE,):
        if pattern == EVERY_TYPE:
            ranges |= {("", RESERVED_PREFIX), (_end_of(RESERVED_PREFIX), _ABOVE_ALL)}
        elif pattern.endswith(_FAMILY):
            ranges.add((pattern[:-1], _end_of(pattern[:-1])))
        else:
            names.add(pattern)
    merged = list[tuple[str, str]]()
    for first, end in sorted(ranges):
        # Two ranges are disjoint, or the first of them holds the other.
        if not merged or first >= merged[-1][1]:
            merged.append((first, end))
    outside = (name for name in names if not any(first <= name < end for first, end in merged))
    return TypeRanges(tuple(sorted(outside)), tuple(merged))


def _end_of(prefix: str) -> str:
    """Return the first text above all texts that begin with a prefix, which ends with a dot."""
    return prefix[:-1] + "/"
