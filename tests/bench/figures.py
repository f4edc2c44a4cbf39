"""Figures: measurements of several rounds, as a median and its range."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """The bar that a figure must reach."""

    limit: float
    at_least: bool = True

    def is_met(self, value: float) -> bool:
        """Return whether a figure reaches the bar."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    parts: str
    """The absolute figures from which the row's figures were made."""
    values: tuple[float, ...]
    """One figure for each round."""
    bar: Bar | None
    """None: the row is only reported."""
    unit: str = ""

    @property
    def value(self) -> float:
        """The median, which counts."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None if there is none."""
        return None if self.bar is None else self.bar.is_met(self.value)


def ratio(what: str, over: Sequence[float], under: Sequence[float], unit: str, bar: Bar | None) -> Row:
    """Return the row of one thing divided by another within each round: a cause that slowed one has slowed the other too."""
    digits = 0 if statistics.median(over) >= 100 else 2
    parts = f"{statistics.median(over):,.{digits}f} ÷ {statistics.median(under):,.{digits}f} {unit}"
    return Row(what, parts, tuple(one / other for one, other in zip(over, under, strict=True)), bar)


def ranged(values: Sequence[float], digits: int, unit: str = "") -> str:
    """Return the median with the range in parentheses."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f}{unit} ({low:,.{digits}f} to {high:,.{digits}f})"


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that `share` of the sorted figures do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
