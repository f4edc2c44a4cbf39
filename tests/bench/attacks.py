"""`python -m tests.bench.attacks`: what honest callers notice of each kind of attack, a minute each."""

import sys

from rich.table import Table

from tests.bench import attacked, results
from tests.bench.attacked import Attack, Attacked
from tests.bench.program import Shown, run
from tests.bench.rounds import Extent

FOR_S = 60.0


async def main(extent: Extent, shown: Shown) -> int:
    """Measure and print a table for each round."""
    rounds = await attacked.measure(extent, shown, FOR_S)
    found = {"rounds": [{"quiet": each.quiet._asdict(), "attacks": [one._asdict() for one in each.attacks]} for each in rounds]}
    files = results.write("attacks", extent, found, {})
    shown.show(*(_table(each) for each in rounds), *(f"written: {path}" for path in files))
    return 0


def _table(found: Attacked) -> Table:
    table = Table(title=f"{attacked.CONNECTIONS} hostile connections, p99 of honest calls in ms, memory in MB")
    for name in ("attack", "hostile calls", "health", "publish", "REST", "refused", "memory grown", "left"):
        table.add_column(name, justify="left" if name == "attack" else "right")
    for each in (found.quiet, *found.attacks):
        table.add_row(*_row(each))
    return table


def _row(each: Attack) -> list[str]:
    times = [f"{1000 * seconds:,.1f}" for seconds in (each.health_s, each.publish_s, each.rest_s)]
    return [each.kind, f"{each.calls:,}", *times, str(len(each.failed)), f"{each.grown_mb:,.0f}", f"{each.left_mb:,.0f}"]


if __name__ == "__main__":
    sys.exit(run("tests.bench.attacks", __doc__ or "", main))
