import pytest

from tests.bench import backlog, pairwise
from tests.bench.figures import Bar, Row, percentile, ranged, ratio
from tests.bench.plot import bars_svg, latency_svg
from tests.bench.rounds import Extent, in_turn


def test_a_ratio_divides_within_each_round() -> None:
    """Anything that slowed both sides of a round leaves their ratio unchanged."""
    row = ratio("one ÷ other", [1000.0, 500.0, 3000.0], [500.0, 250.0, 1000.0], "events/s", Bar(2))
    assert row.values == (2.0, 2.0, 3.0)
    assert row.value == 2.0
    assert row.met is True
    assert row.parts == "1,000 ÷ 500 events/s"


def test_a_bar_is_a_floor_or_a_ceiling() -> None:
    assert Bar(2).is_met(2.0)
    assert not Bar(2).is_met(1.99)
    assert Bar(3, at_least=False).is_met(3.0)
    assert not Bar(3, at_least=False).is_met(3.01)
    assert [str(Bar(0.45)), str(Bar(15, at_least=False))] == ["≥ 0.45", "≤ 15"]


def test_without_a_bar_nothing_is_met_or_missed() -> None:
    assert Row("what", "parts", (1.0,), None).met is None


def test_the_range_stands_beside_the_median() -> None:
    assert ranged([3.0, 1.0, 2.0], 1, " ms") == "2.0 ms (1.0 to 3.0)"


@pytest.mark.parametrize(("share", "found"), [(0.0, 0), (0.5, 50), (0.99, 99), (1.0, 99)])
def test_a_percentile_of_sorted_figures(share: float, found: int) -> None:
    assert percentile(range(100), share) == found


def test_pictures_are_drawn_of_any_figures() -> None:
    assert latency_svg([0.0]).startswith("<svg")
    assert "11 (10 to 12)" in bars_svg("rates", {"one": [10.0, 11.0, 12.0]})


def test_a_pairwise_ratio_above_one_is_better_than_before() -> None:
    """Of throughput more is better, of times less; a figure that one side does not have is left out."""
    before = [{"delivered, deliveries/s": 100.0, "CPU a delivery, µs": 50.0, "p99, ms": 4.0, "gone, ms": 1.0}]
    now = [{"delivered, deliveries/s": 150.0, "CPU a delivery, µs": 25.0, "p99, ms": 8.0}]

    rows = pairwise.ratios(before, now)

    assert {row.what: (row.value, row.met) for row in rows} == {
        "delivered, deliveries/s": (1.5, True),
        "CPU a delivery, µs": (2.0, True),
        "p99, ms": (0.5, False),
    }


def test_requests_under_way_at_once_may_overtake_each_other_and_no_others() -> None:
    ids = [f"evt_{number}" for number in range(10)]

    assert backlog.out_of_order(["evt_2", "evt_0", "evt_1", "another"], ids, at_once=2) == 0
    assert backlog.out_of_order(["evt_3", "evt_0", "evt_1"], ids, at_once=2) == 1


async def test_ways_are_measured_in_turn() -> None:
    """Each way is measured once a round, each time with a text of its own."""
    steps, runs = _Steps(), list[str]()

    async def way(run: str) -> str:
        runs.append(run)
        return run

    figures = await in_turn("part", {"one": way, "other": way}, 2, steps)
    assert figures == {"one": runs[0::2], "other": runs[1::2]}
    assert len(set(runs)) == 4
    assert steps.told == ["part 4", "one, round 1 of 2", "other, round 1 of 2", "one, round 2 of 2", "other, round 2 of 2"]


def test_a_quick_run_does_a_twentieth() -> None:
    assert [Extent(1, quick=True).of(count) for count in (20_000, 10)] == [1_000, 1]
    assert Extent(1, quick=False).of(20_000) == 20_000


class _Steps:
    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, part: str, count: int) -> None:
        self.told.append(f"{part} {count}")

    def step(self, what: str) -> None:
        self.told.append(what)
