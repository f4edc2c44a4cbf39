import random
from pathlib import Path

import pytest

from tests.support.service_spawner import Spawner
from tests.torture.random_kills import Options, torture


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", [1, 2])
async def test_thirty_kills_at_random_under_load_lose_nothing(spawner: Spawner, tmp_path: Path, workers: int) -> None:
    """Each service and an emitter is killed at random moments, two at once among them; a failure shows the seed that decides them."""
    seed = random.SystemRandom().randrange(1 << 32)
    said: list[str] = []
    judgement = await torture(Options(kills=30, seed=seed, workers=workers), tmp_path / "torture", spawner, said.append)
    assert not judgement.broken, "\n".join([f"seed {seed}", *said])
    assert judgement.acknowledged > 300, said
    assert judgement.due > judgement.acknowledged, said
