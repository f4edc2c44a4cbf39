import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.seeded_run import play_seed

# If a change of delivery makes another seed the first to catch a bug, look for it among so many; record it in `bugs.py`.
SEEDS_MAX = 150


@pytest.mark.parametrize("name", BUGS)
def test_each_bug_that_is_put_back_is_caught(name: str, monkeypatch: pytest.MonkeyPatch, quiet: None) -> None:
    """An invariant fails, and the same seed fails in the same way again."""
    del quiet
    bug = BUGS[name]
    bug.put_back(monkeypatch.setattr)
    played = (play_seed(seed) for seed in dict.fromkeys((bug.seed, *range(1, SEEDS_MAX))))
    caught = next((each for each in played if each.failure), None)
    assert caught is not None, f"no seed below {SEEDS_MAX} catches the bug"
    assert "AssertionError: " in caught.failure or "LedgerInvariantError: " in caught.failure, caught.failure
    assert play_seed(caught.seed).trace == caught.trace


def test_enough_bugs_are_put_back() -> None:
    assert len(BUGS) >= 25
    assert all((bug.put_back.__doc__ or "").strip() for bug in BUGS.values())
