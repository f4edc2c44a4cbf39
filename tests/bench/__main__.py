"""`make bench`: measures, shows a table, and writes it as JSON (`bench-results/`), with a plot of the latencies."""

import argparse
import json
import os
import platform
import sqlite3
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench import delivering, publishing, routing
from tests.bench.plot import latency_svg
from tests.bench.world import pin

RESULTS = Path("bench-results")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    figures: str
    value: float
    bar: float
    at_least: bool
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the bar is met."""
        return self.value >= self.bar if self.at_least else self.value <= self.bar


def main() -> int:
    """Measure; exit code 0 where every bar is met, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each thing is measured (default 3; the median counts)")
    arguments = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        sys.stderr.write("bench: two cores are needed, one for the services and one for the load\n")
        return 2
    console = Console()
    rows: list[Row] = []
    pin()
    began = time.monotonic()
    for name, part in (("publishing", _publishing), ("delivering", _delivering), ("routing", _routing)):
        console.print(f"[dim]{time.monotonic() - began:5.0f} s[/]  measuring {name} …")
        rows += part(arguments.rounds)
    _show(console, rows)
    _write(rows)
    return 0 if all(row.met for row in rows) else 1


def _publishing(rounds: int) -> list[Row]:
    figures = uvloop.run(publishing.measure(rounds))
    client, raw, bare = (_median(figures[name]) for name in ("client", "raw", "bare"))
    return [
        Row(
            "emitter client, 1 000 callers ÷ raw stream of 100 a message",
            f"{client:,.0f} ÷ {raw:,.0f} events/s",
            client / raw,
            0.5,
            at_least=True,
        ),
        Row("raw stream ÷ bare executemany of the same rows", f"{raw:,.0f} ÷ {bare:,.0f} events/s", raw / bare, 0.5, at_least=True),
    ]


def _delivering(rounds: int) -> list[Row]:
    figures, latencies = uvloop.run(delivering.measure(rounds))
    one, fan, client = (_median(figures[name]) for name in ("one", "fan", "client"))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latency.svg").write_text(latency_svg([each * 1000 for each in latencies]))
    p50, p99 = (latencies[int(len(latencies) * share)] * 1000 for share in (0.5, 0.99))
    half = f"at {one / 2:,.0f} events/s, {len(latencies):,} events"
    return [
        Row("delivered end to end ÷ the HTTP client alone", f"{one:,.0f} ÷ {client:,.0f} deliveries/s", one / client, 0.45, at_least=True),
        Row("acknowledgement to arrival at half load, p50", half, p50, 5.0, at_least=False, unit=" ms"),
        Row("acknowledgement to arrival at half load, p99", half, p99, 50.0, at_least=False, unit=" ms"),
        Row("fan-out 1 to 100 ÷ 1 to 1", f"{fan:,.0f} ÷ {one:,.0f} deliveries/s", fan / one, 1.2, at_least=True),
    ]


def _routing(rounds: int) -> list[Row]:
    figures = routing.measure(rounds)
    few, many = _median(figures["few"]), _median(figures["many"])
    return [
        Row(
            "routing with 100 000 subscriptions ÷ with 100, same matches",
            f"{many:.2f} ÷ {few:.2f} µs/event",
            many / few,
            1.5,
            at_least=False,
        )
    ]


def _median(figures: list[float]) -> float:
    return sorted(figures)[len(figures) // 2]


def _show(console: Console, rows: list[Row]) -> None:
    table = Table(title="Hooktide bench: services on core 0, load and receiver on core 1, 1 KB events, medians")
    for name in ("what", "figures", "result", "bar", ""):
        table.add_column(name, justify="right" if name in {"result", "bar"} else "left")
    for row in rows:
        bar = f"{'≥' if row.at_least else '≤'} {row.bar:g}{row.unit}"
        table.add_row(row.what, row.figures, f"{row.value:.2f}{row.unit}", bar, "[green]met[/]" if row.met else "[red]missed[/]")
    console.print(table)


def _write(rows: list[Row]) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    machine = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    path.write_text(
        json.dumps({"machine": machine, "rows": [{**asdict(row), "met": row.met} for row in rows]}, indent=2, ensure_ascii=False)
    )
    sys.stdout.write(f"written: {path} and {RESULTS / 'latency.svg'}\n")


if __name__ == "__main__":
    sys.exit(main())
