"""Cuts in the simulated world: with any number of workers at each start, every event reaches its end, and a cut repeats none."""

import gc
from collections.abc import Collection, Sequence

import pytest

from services.delivery.ledger.ledger_map import arranged
from services.delivery.ledger.protocol import GroupCursor
from services.delivery.ledger.sqlite import slot_copy
from services.delivery.request.request_settings import Subscription
from services.delivery.worker.slot_floors import SlotFloors
from tests.simulation.cut_run import play_cut_seed


@pytest.mark.parametrize("seed", range(1, 7))
def test_ledgers_that_are_cut_again_and_again_lose_and_repeat_nothing(seed: int, quiet: None) -> None:
    """Workers run in turn, so their slots stand at different places. Starts crash at any step of a cut, and workers crash at flushes."""
    del quiet
    failure, cuts = play_cut_seed(seed)
    assert not failure, failure
    assert cuts


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_seeds_of_cuts(quiet: None) -> None:
    del quiet
    failures = {seed: failure for seed in range(7, 150) if (failure := play_cut_seed(seed)[0])}
    assert not failures, next(iter(failures.items()))


def _all_of(_self: SlotFloors, matches: Sequence[Subscription], _position: int) -> Sequence[Subscription]:
    return matches


def _highest_first(groups: Collection[tuple[GroupCursor, Collection[int]]]) -> list[tuple[GroupCursor, list[int]]]:
    ordered = arranged(groups)[::-1]
    return [(GroupCursor(1 + number, cursor.shards), slots) for number, (cursor, slots) in enumerate(ordered)]


@pytest.mark.parametrize(
    ("where", "name", "bug", "seed"),
    [
        pytest.param(SlotFloors, "above", _all_of, 6, id="what another file has recorded is routed again"),
        pytest.param(slot_copy, "arranged", _highest_first, 2, id="a worker reads from the highest place"),
    ],
)
def test_bugs_of_cuts_that_are_put_back_are_caught(
    monkeypatch: pytest.MonkeyPatch, quiet: None, where: object, name: str, bug: object, seed: int
) -> None:
    del quiet
    monkeypatch.setattr(where, name, bug)
    seeds = dict.fromkeys((seed, *range(1, 60)))
    is_caught = any("AssertionError" in play_cut_seed(each)[0] for each in seeds)
    # A broken world ends in the middle of its tasks. Collect them here: they log errors, and must not do so in another test.
    gc.collect()
    assert is_caught
