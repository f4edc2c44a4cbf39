"""Seed pool: plays many seeds in a few processes."""

import gc
import logging
import multiprocessing
from collections.abc import Iterator, Sequence

import structlog

from tests.simulation.bugs import BUGS
from tests.simulation.flush_kills import Kills
from tests.simulation.seeded_run import Played, play_seed

Plan = tuple[int, Kills | None]
"""A seed, and the flushes at which the worker is killed if the seed does not choose them."""

_COLLECT_EVERY = 50


def play_all(plans: Sequence[Plan], processes: int, bug: str = "") -> Iterator[Played]:
    """Play all plans, with a bug of `BUGS` if one is named; yield the results in the order of the plans."""
    # A fork has everything imported; here nothing has started a thread yet.
    with multiprocessing.get_context("fork").Pool(processes, silence, (bug,)) as pool:
        yield from pool.imap(_play, plans, chunksize=4)


def silence(bug: str = "") -> None:
    """Prepare a process for runs, with a bug if one is named. It logs nothing: a run makes hundreds of failed attempts."""
    if bug:
        BUGS[bug].put_back(setattr)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    # A run leaves few cycles, and looking for them takes a sixth of its time.
    gc.freeze()
    gc.disable()


def _play(plan: Plan) -> Played:
    seed, kills = plan
    if seed % _COLLECT_EVERY == 0:
        gc.collect()
    return play_seed(seed, kills)
