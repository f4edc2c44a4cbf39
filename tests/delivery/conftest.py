import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import structlog

from services.delivery.ledger.protocol import Ledger
from tests.delivery.ledger.stores import SqliteStore
from tests.delivery.system import System, running_system
from tests.simulation.playing import Scenario, play_scenario
from tests.simulation.tiny_settings import settings_of_tests
from tests.support.webhook_receivers.receiver import Receiver


class Play(Protocol):
    """Plays a scenario in virtual time, in a world of its own."""

    def __call__(self, scenario: Scenario, seed: int = 0, /, **settings: str) -> None:
        """Play the scenario to its end; `settings` override the tiny ones of the simulation's delivery service."""
        ...


@pytest.fixture
def quiet() -> Iterator[None]:
    """Silence the log: these tests make thousands of failed attempts."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture
def play(tmp_path: Path, store: SqliteStore, quiet: None) -> Play:
    """Return a function that plays scenarios."""
    del quiet

    def run(scenario: Scenario, seed: int = 0, /, **settings: str) -> None:
        play_scenario(scenario, seed, settings_of_tests(tmp_path, **settings), store)

    return run


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    """The place of a ledger."""
    return SqliteStore(tmp_path / "delivery.db")


@pytest.fixture
async def ledger(store: SqliteStore) -> AsyncIterator[Ledger]:
    """A ledger with its lease taken."""
    async with store.open() as opened:
        await opened.take_lease("one")
        yield opened


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """The services around delivery, for one test."""
    async with running_system(tmp_path) as system:
        yield system


@pytest.fixture
async def hooks() -> AsyncIterator[Receiver]:
    """A receiver of webhooks."""
    async with Receiver() as hooks:
        yield hooks
