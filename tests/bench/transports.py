"""Transports: compares transports in the whole path and alone, plaintext and TLS, with one sink and with many; prints a Markdown table.

    .venv/bin/python -m tests.bench.transports [--rounds 5] [--quick]

Each transport has a system of its own, all up in the same run on the same core, measured in turn. Each cell is the median with the
range, of deliveries a second and of the delivery service's CPU time for each delivery (alone: the client's).
"""

import contextlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from tests.bench import results
from tests.bench.bare_client import Speed
from tests.bench.figures import ranged
from tests.bench.flows import Flow, Flows, alone, delivered, sample
from tests.bench.openers import PRODUCT, YARDSTICK
from tests.bench.plot import bars_svg
from tests.bench.program import MEANINGLESS, Shown, run
from tests.bench.rounds import Extent, Way, in_turn
from tests.bench.sink import sink
from tests.bench.world import bench_system

_DELIVERIES, _HOSTS = 20_000, 1_000


class Case(NamedTuple):
    """A row of the table."""

    alone: bool
    scheme: str
    hosts: int

    def __str__(self) -> str:
        scheme = "TLS" if self.scheme == "https" else "plaintext"
        return f"{'alone' if self.alone else 'whole path'}, {scheme}, {self.hosts:,} endpoint{'' if self.hosts == 1 else 's'}"


async def main(extent: Extent, shown: Shown) -> int:
    """Measure and print."""
    names, count = (YARDSTICK, PRODUCT), extent.of(_DELIVERIES)
    cases = [Case(*each) for each in itertools.product((False, True), ("http", "https"), (1, extent.of(_HOSTS)))]
    async with contextlib.AsyncExitStack() as stack:
        seen = stack.enter_context(sink(extent.of(_HOSTS)))
        shown.begin("transports", len(names))
        flows: dict[str, dict[Case, Flow]] = {}
        for name in names:
            shown.step(f"starting the system with {name}")
            system = Flows(await stack.enter_async_context(bench_system(transport=name, roots=seen.roots)), seen)
            made = {
                case: await system.flow(f"{case.scheme}-{case.hosts}", case.scheme, hosts=case.hosts) for case in cases if not case.alone
            }
            flows[name] = {case: made[case._replace(alone=False)] for case in cases}
        like = await sample(flows[PRODUCT][cases[0]])

        def way(case: Case, name: str) -> Way[Speed]:
            flow = flows[name][case]
            return partial(alone, flow, like, name, count) if case.alone else partial(delivered, flow, count)

        ways = {f"{case}, {name}": way(case, name) for case in cases for name in names}
        speeds = await in_turn("transports", ways, extent.rounds, shown)
    per_s = {name: [speed.per_s for speed in each] for name, each in speeds.items()}
    cpu_us = {name: [speed.cpu_us for speed in each] for name, each in speeds.items()}
    pictures = {"transports": bars_svg("Deliveries a second, median and range", per_s)}
    files = results.write("transports", extent, {"delivered_per_s": per_s, "cpu_us": cpu_us}, pictures)
    shown.show(*(f"written: {path}" for path in files))
    sys.stdout.write(f"\n{_markdown(names, cases, speeds)}\n{MEANINGLESS if extent.quick else ''}\n")
    return 0


def _markdown(names: Sequence[str], cases: Sequence[Case], speeds: Mapping[str, Sequence[Speed]]) -> str:
    lines = [["deliveries/s, median (range) · CPU", *names], ["---"] * (1 + len(names))]
    lines += [[str(case), *(_cell(speeds[f"{case}, {name}"]) for name in names)] for case in cases]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(speeds: Sequence[Speed]) -> str:
    per_s, cpu_us = zip(*speeds, strict=True)
    return f"{ranged(per_s, 0)} · {ranged(cpu_us, 0)} µs"


if __name__ == "__main__":
    sys.exit(run("tests.bench.transports", __doc__ or "", main))
