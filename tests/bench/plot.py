"""Plot: latencies by percentile, and medians with their ranges, as SVG pictures."""

import statistics
from collections.abc import Mapping, Sequence

from tests.bench.figures import percentile, ranged

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 260, 52, 36
_BARS_WIDTH, _ROW, _NAMES, _FIGURES = 760, 26, 270, 170


def latency_svg(sorted_ms: Sequence[float]) -> str:
    """Return the latencies (sorted, in ms) by percentile, on a scale that gives each further nine the same width."""
    top = max(percentile(sorted_ms, 0.999), 0.001) * 1.1
    points = []
    for step in range(401):
        nines = step / 400 * 3  # 0 → 0 %, 1 → 90 %, 2 → 99 %, 3 → 99.9 %
        share = 1 - 10**-nines
        points.append(f"{_x(nines):.1f},{_y(percentile(sorted_ms, share), top):.1f}")
    labels = "".join(_x_label(nines, text) for nines, text in ((0, "0 %"), (0.301, "50 %"), (1, "90 %"), (2, "99 %"), (3, "99.9 %")))
    lines = "".join(_y_line(top * part / 4, top) for part in range(5))
    title = f"Acknowledgement to arrival at half load, ms by percentile ({len(sorted_ms):,} events)"
    line = f'<polyline fill="none" stroke="#1d4ed8" stroke-width="2" points="{" ".join(points)}"/>'
    return _svg(_WIDTH, _HEIGHT, title, f"{lines}{labels}{line}")


def bars_svg(title: str, series: Mapping[str, Sequence[float]]) -> str:
    """Return for each name its median as a bar, with the range as a line on the bar and both as figures beside it."""
    top = max(max(values) for values in series.values())
    bars = "".join(_bar(row, name, values, top) for row, (name, values) in enumerate(series.items()))
    return _svg(_BARS_WIDTH, 28 + _ROW * len(series) + 8, title, bars)


def _bar(row: int, name: str, values: Sequence[float], top: float) -> str:
    y, scale = 28 + _ROW * row, (_BARS_WIDTH - _NAMES - _FIGURES) / top
    low, middle, high = (_NAMES + scale * value for value in (min(values), statistics.median(values), max(values)))
    return (
        f'<text x="{_NAMES - 8}" y="{y + 13}" text-anchor="end">{name}</text>'
        f'<rect x="{_NAMES}" y="{y}" width="{middle - _NAMES:.1f}" height="18" fill="#93c5fd"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y + 9}" y2="{y + 9}" stroke="#1e3a8a" stroke-width="2"/>'
        f'<text x="{high + 8:.1f}" y="{y + 13}">{ranged(values, 0)}</text>'
    )


def _svg(width: int, height: int, title: str, drawn: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{drawn}'
        f'<text x="{_LEFT}" y="14" font-weight="600">{title}</text></svg>'
    )


def _x(nines: float) -> float:
    return _LEFT + nines / 3 * (_WIDTH - _LEFT - 24)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - min(value / top, 1.0) * (_HEIGHT - _BOTTOM - 28)


def _x_label(nines: float, text: str) -> str:
    x = _x(nines)
    line = f'<line x1="{x:.0f}" x2="{x:.0f}" y1="28" y2="{_HEIGHT - _BOTTOM}" stroke="#e2e8f0"/>'
    return f'{line}<text x="{x:.0f}" y="{_HEIGHT - 16}" text-anchor="middle">{text}</text>'


def _y_line(value: float, top: float) -> str:
    y = _y(value, top)
    line = f'<line x1="{_LEFT}" x2="{_WIDTH - 24}" y1="{y:.0f}" y2="{y:.0f}" stroke="#e2e8f0"/>'
    return f'{line}<text x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{value:.1f}</text>'
