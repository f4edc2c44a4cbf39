from collections.abc import Iterator

import pytest

from tests.simulation.bugs import BUGS, Bug
from tests.simulation.playing import Scenario
from tests.simulation.seeded_run import Played, play_directed, play_seed

# A change of delivery may make another seed the first to catch a bug. Look for it among so many seeds, and record it in `bugs.py`. If none
# of them catches the bug, write a directed scenario for it and take no lucky seed from further on.
SEEDS_MAX = 150
DIRECTED = {bug.caught_by.__name__: bug.caught_by for bug in BUGS.values() if not isinstance(bug.caught_by, int)}


@pytest.mark.parametrize("name", BUGS)
def test_each_bug_that_is_put_back_is_caught(name: str, monkeypatch: pytest.MonkeyPatch, quiet: None) -> None:
    """An invariant fails, and the same run fails in the same way again."""
    del quiet
    bug = BUGS[name]
    bug.put_back(monkeypatch.setattr)
    caught = next((each for each in _runs(bug) if each.failure), None)
    assert caught is not None, f"no seed below {SEEDS_MAX} catches the bug"
    assert "AssertionError: " in caught.failure or "LedgerInvariantError: " in caught.failure, caught.failure
    again = play_seed(caught.seed) if isinstance(bug.caught_by, int) else play_directed(bug.caught_by)
    assert again.trace == caught.trace


def _runs(bug: Bug) -> Iterator[Played]:
    """Play the scenario of a bug, or its seed and then all other seeds."""
    if isinstance(bug.caught_by, int):
        yield from (play_seed(seed) for seed in dict.fromkeys((bug.caught_by, *range(1, SEEDS_MAX))))
    else:
        yield play_directed(bug.caught_by)


@pytest.mark.parametrize("scenario", DIRECTED.values(), ids=DIRECTED)
def test_a_scenario_that_catches_a_bug_holds_without_it(scenario: Scenario, quiet: None) -> None:
    del quiet
    assert not (played := play_directed(scenario)).failure, played.failure


def test_seeds_are_recorded_only_from_those_that_are_searched() -> None:
    assert all(bug.caught_by < SEEDS_MAX for bug in BUGS.values() if isinstance(bug.caught_by, int))


def test_enough_bugs_are_put_back() -> None:
    assert len(BUGS) >= 25
    assert all((bug.put_back.__doc__ or "").strip() for bug in BUGS.values())
