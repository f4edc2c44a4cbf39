"""`make bench`: throughput and latency as ratios within one run, as a table, JSON and pictures (`bench-results/`).

make bench ARGS="--only delivering routing" measures some parts only.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.table import Table

from tests.bench import attacked, backlog, behind, delivering, neighbours, publishing, relaying, results, routing, slow_sink, workers
from tests.bench.figures import Row, ranged
from tests.bench.part import Measure
from tests.bench.program import MEANINGLESS, Shown, run
from tests.bench.rounds import Extent

_TITLE = "Hooktide bench: services on core 0, load and receiver on core 1; median of the rounds (range)"
_PARTS: Mapping[str, Measure] = {
    "publishing": publishing.part,
    "delivering": delivering.part,
    "routing": routing.part,
    "attacks": attacked.part,
    "slow-sink": slow_sink.part,
    "neighbours": neighbours.part,
    "backlog": backlog.part,
    "behind": behind.part,
    "relaying": relaying.part,
    "workers": workers.part,
}


async def main(extent: Extent, shown: Shown) -> int:
    """Measure; return 0 if every bar is met, or if the run is only a quick check, else 1."""
    parts = [await measure(extent, shown) for name, measure in _PARTS.items() if not extent.only or name in extent.only]
    rows = [row for part in parts for row in part.rows]
    found = {name: value for part in parts for name, value in part.found.items()}
    pictures = {name: picture for part in parts for name, picture in part.pictures.items()}
    told = [{**asdict(row), "value": row.value, "met": row.met} for row in rows]
    files = results.write("bench", extent, {"rows": told, **found}, pictures)
    shown.show(_table(rows, extent), *(f"written: {path}" for path in files))
    return 0 if extent.quick or all(row.met is not False for row in rows) else 1


def _table(rows: Sequence[Row], extent: Extent) -> Table:
    table = Table(title=_TITLE, caption=MEANINGLESS if extent.quick else None)
    for name in ("what", "figures", "result", "bar", ""):
        table.add_column(name, justify="right" if name in {"result", "bar"} else "left")
    for row in rows:
        bar = "" if row.bar is None else f"{row.bar}{row.unit}"
        table.add_row(row.what, row.parts, ranged(row.values, 2, row.unit), bar, "" if extent.quick else _VERDICTS[row.met])
    return table


_VERDICTS = {True: "[green]met[/]", False: "[red]missed[/]", None: "reported"}


if __name__ == "__main__":
    sys.exit(run("tests.bench", __doc__ or "", main, _PARTS))
