"""`make bench`: throughput and latency as ratios within one run, as a table, JSON and pictures (`bench-results/`)."""

import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from tests.bench import attacked, delivering, publishing, results, routing
from tests.bench.attacked import Attacked
from tests.bench.delivering import Delivering
from tests.bench.figures import Bar, Row, percentile, ranged, ratio
from tests.bench.plot import bars_svg, latency_svg
from tests.bench.program import MEANINGLESS, Shown, run
from tests.bench.rounds import Extent

_TITLE = "Hooktide bench: services on core 0, load and receiver on core 1, 1 KB events; median of the rounds (range)"


async def main(extent: Extent, shown: Shown) -> int:
    """Measure; return 0 if every bar is met, or if the run is only a quick check, else 1."""
    published = await publishing.measure(extent, shown)
    found = await delivering.measure(extent, shown)
    routed = await routing.measure(extent, shown)
    attacks = await attacked.measure(extent, shown)
    delivered = {name: [speed.per_s for speed in speeds] for name, speeds in found.speeds.items()}
    rows = [*_publishing(published), *_delivering(delivered), *_latency(found), *_routing(routed), *_attacks(attacks)]
    files = results.write(
        "bench",
        extent,
        {
            "rows": [{**asdict(row), "value": row.value, "met": row.met} for row in rows],
            "published_per_s": published,
            "delivered_per_s": delivered,
            "cpu_us": {name: [speed.cpu_us for speed in speeds] for name, speeds in found.speeds.items()},
            "routing_us": routed,
            "attacks": [{"quiet": each.quiet._asdict(), "attacks": [one._asdict() for one in each.attacks]} for each in attacks],
        },
        {
            "latency": latency_svg(sorted(1000 * each for one in found.latencies for each in one)),
            "deliveries": bars_svg("Deliveries a second, median and range", delivered),
            "publishing": bars_svg("Durable events a second, median and range", published),
        },
    )
    shown.show(_table(rows, extent), *(f"written: {path}" for path in files))
    return 0 if extent.quick or all(row.met is not False for row in rows) else 1


def _publishing(per_s: dict[str, list[float]]) -> list[Row]:
    client, raw, bare = (per_s[name] for name in (publishing.CLIENT, publishing.RAW, publishing.BARE))
    return [
        ratio("emitter client, 1 000 callers ÷ raw stream of 100 a message", client, raw, "events/s", Bar(0.5)),
        ratio("raw stream ÷ bare executemany of the same rows", raw, bare, "events/s", Bar(0.5)),
    ]


def _delivering(per_s: dict[str, list[float]]) -> list[Row]:
    ours, unit = per_s[delivering.SYSTEM], "deliveries/s"
    return [
        ratio("delivered end to end ÷ the same system with aiohttp", ours, per_s[delivering.BY_AIOHTTP], unit, Bar(2)),
        ratio("the same system with aiohttp ÷ its client alone", per_s[delivering.BY_AIOHTTP], per_s[delivering.AIOHTTP], unit, Bar(0.45)),
        ratio("delivered end to end ÷ our client alone", ours, per_s[delivering.CLIENT], unit, None),
        ratio("delivered over TLS ÷ plaintext", per_s[delivering.BY_TLS], ours, unit, Bar(0.75)),
        ratio("fan-out 1 to 100 ÷ 1 to 1", per_s[delivering.FANNED], ours, unit, Bar(1.3)),
    ]


def _latency(found: Delivering) -> list[Row]:
    at = f"at {found.half_per_s:,.0f} events/s, {sum(map(len, found.latencies)):,} events"

    def row(share: float, limit_ms: float) -> Row:
        values_ms = tuple(percentile(each, share) * 1000 for each in found.latencies)
        return Row(f"acknowledgement to arrival at half load, p{share * 100:.0f}", at, values_ms, Bar(limit_ms, at_least=False), " ms")

    return [row(0.5, 3), row(0.99, 15)]


def _routing(us: dict[str, list[float]]) -> list[Row]:
    bar = Bar(1.5, at_least=False)
    return [ratio("routing with 100 000 subscriptions ÷ with 100, same matches", us[routing.MANY], us[routing.FEW], "µs/event", bar)]


def _attacks(rounds: Sequence[Attacked]) -> list[Row]:
    at = f"{attacked.CONNECTIONS} hostile connections, the worst of {len(rounds[0].attacks)} kinds"
    health = [1000 * each.worst(lambda attack: attack.health_s) for each in rounds]
    publish = [(each.worst(lambda attack: attack.publish_s), each.quiet.publish_s) for each in rounds]
    rest = [(each.worst(lambda attack: attack.rest_s), each.quiet.rest_s) for each in rounds]
    grown = [each.worst(lambda attack: attack.grown_mb) for each in rounds]
    left = [each.worst(lambda attack: attack.left_mb) for each in rounds]
    failed = [each.worst(lambda attack: len(attack.failed)) for each in rounds]
    return [
        Row("health check while attacked, p99", at, tuple(health), Bar(250, at_least=False), " ms"),
        _slowed("honest publish while attacked ÷ quiet, p99", publish),
        _slowed("honest REST call while attacked ÷ quiet, p99", rest),
        Row("honest calls refused while attacked", at, tuple(failed), Bar(0, at_least=False)),
        Row("memory grown while attacked", at, tuple(grown), Bar(100, at_least=False), " MB"),
        Row("memory left at most 60 s later", at, tuple(left), Bar(50, at_least=False), " MB"),
    ]


def _slowed(what: str, pairs: Sequence[tuple[float, float]]) -> Row:
    attacked_ms, quiet_ms = ([1000 * each for each in times] for times in zip(*pairs, strict=True))
    return ratio(what, attacked_ms, quiet_ms, "ms", Bar(2, at_least=False))


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
    sys.exit(run("tests.bench", __doc__ or "", main))
