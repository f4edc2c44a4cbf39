from collections.abc import AsyncIterator

import pytest

from tests.emitter.service import IngestOfTests, Running


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A running ingest service of the tests' own."""
    running = Running(IngestOfTests())
    await running.start()
    yield running
    running.service.behaviour.answering.set()
    await running.stop()


@pytest.fixture
def service(running: Running) -> IngestOfTests:
    return running.service
