"""Fixtures: one service spawner for all tests of faults, with the shim preloaded, and the systems that tests break."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.faulty_system import FaultySystem, running_faulty_system
from tests.faults.shim import build_shim
from tests.support.service_spawner import Spawner, running_spawner


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The compiled shim; None if it cannot be built."""
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def spawner(shim: Path | None) -> Iterator[Spawner]:
    with running_spawner({} if shim is None else {"LD_PRELOAD": str(shim)}) as running:
        yield running


@pytest.fixture(scope="session")
def faulty_spawner(shim: Path | None, spawner: Spawner) -> Spawner:
    """Starts services whose disks and clocks a test can break; without a C compiler the test is skipped, or fails under CI."""
    if shim is None:
        assert not os.environ.get("CI"), "there is no C compiler (cc)"
        pytest.skip("there is no C compiler (cc)")
    return spawner


@pytest_asyncio.fixture(scope="session")
async def lasting_faulty(faulty_spawner: Spawner, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FaultySystem]:
    async with running_faulty_system(tmp_path_factory.mktemp("faulty") / "lasting", faulty_spawner) as running:
        yield running


@pytest_asyncio.fixture
async def own_faulty(faulty_spawner: Spawner, tmp_path: Path) -> AsyncIterator[FaultySystem]:
    """A system for one test alone, which may leave stores and clocks in any condition."""
    async with running_faulty_system(tmp_path / "faulty", faulty_spawner, {"HOOKTIDE_HOUSEKEEPING_SECONDS": "0.2"}) as running:
        yield running


@pytest_asyncio.fixture
async def faulty(lasting_faulty: FaultySystem) -> AsyncIterator[FaultySystem]:
    """One system for all tests that leave its stores in order; everything else that a test broke is repaired after the test."""
    yield lasting_faulty
    await lasting_faulty.mend()
