"""Fixtures: one service spawner for all tests of faults, with the shim preloaded, and the systems that tests break."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.faulty_system import Stage, running_stage
from tests.faults.service_spawner import Nursery, running_nursery
from tests.faults.shim import build_shim


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The compiled shim; None if it cannot be built."""
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def nursery(shim: Path | None) -> Iterator[Nursery]:
    with running_nursery({} if shim is None else {"LD_PRELOAD": str(shim)}) as running:
        yield running


@pytest.fixture(scope="session")
def spoiling_nursery(shim: Path | None, nursery: Nursery) -> Nursery:
    """Starts services whose disks and clocks a test can break; without a C compiler the test is skipped, or fails under CI."""
    if shim is None:
        assert not os.environ.get("CI"), "there is no C compiler (cc)"
        pytest.skip("there is no C compiler (cc)")
    return nursery


@pytest_asyncio.fixture(scope="session")
async def lasting_stage(spoiling_nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with running_stage(tmp_path_factory.mktemp("stage") / "lasting", spoiling_nursery) as running:
        yield running


@pytest_asyncio.fixture
async def own_stage(spoiling_nursery: Nursery, tmp_path: Path) -> AsyncIterator[Stage]:
    """A system for one test alone, which may leave stores and clocks in any condition."""
    async with running_stage(tmp_path / "stage", spoiling_nursery, {"HOOKTIDE_HOUSEKEEPING_SECONDS": "0.2"}) as running:
        yield running


@pytest_asyncio.fixture
async def stage(lasting_stage: Stage) -> AsyncIterator[Stage]:
    """One system for all tests that leave its stores in order; everything else that a test broke is repaired after the test."""
    yield lasting_stage
    await lasting_stage.mend()
