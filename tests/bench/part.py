"""Part: one part of the bench, which can be measured on its own (`--only`), and its results."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from tests.bench.figures import Row
from tests.bench.rounds import Extent, Steps


@dataclass(frozen=True, slots=True)
class Part:
    """The results of one part."""

    rows: list[Row]
    found: Mapping[str, object]
    """All measurements, for the JSON file."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """SVG pictures by name."""


Measure = Callable[[Extent, Steps], Awaitable[Part]]
