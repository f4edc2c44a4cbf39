"""Row 6: power is lost, and with it every write that was not synced.

The services run on a disk of the tests' own (`shim.c`): a write only marks pages, and a successful sync copies them to where
they survive the loss. All services are stopped at the same moment, and each database is put back to what that disk holds. So a
commit that was acknowledged without a sync, or synced before it was written, would be lost, and an acknowledged event with it.
In one case the disk loses everything unsynced; in the other it keeps a random share of the unsynced sectors.

These tests do not cover a disk that lies about a sync, or a sync that is itself cut off half-way (here a sync is whole,
or has not happened). `test_shim.py` proves that the disk does lose what is not synced.
"""

import random
from pathlib import Path

import pytest

from tests.faults.faulty_system import kill_at_once
from tests.faults.shim import lose_power
from tests.support.service_spawner import Spawner
from tests.support.system.processes import SERVICES
from tests.support.waiting import PATIENCE_S, until
from tests.torture.campaign import running_campaign
from tests.torture.load import Rates

_LOSSES = 2


@pytest.mark.parametrize("kept", [0.0, 0.5])
async def test_no_acknowledged_event_is_lost_with_the_power(faulty_spawner: Spawner, tmp_path: Path, kept: float) -> None:
    """Power is lost several times in a row; a repeated event has the same id and bytes, and is repeated only around a loss."""
    seed = random.SystemRandom().randrange(1 << 32)
    rates = Rates(emitters=2, per_s=80.0, process_per_s=0.0)
    lost: list[str] = []
    async with running_campaign(tmp_path / "campaign", faulty_spawner, seed, rates, spoilt=True) as campaign:
        system = campaign.system
        async with campaign.load.running():
            for _ in range(_LOSSES):
                before = len(campaign.course.emitted)
                await until(lambda before=before: len(campaign.course.emitted) > before + 120, PATIENCE_S, "load")
                kill_at_once(system)
                campaign.note_kill("delivery")
                lost += lose_power(campaign.told, system.data_dir, kept=kept, rng=campaign.rng)
                for name in SERVICES:
                    await campaign.restart(name)
        await campaign.heal()
        await campaign.drained()
        judgement = await campaign.judge()
    assert not judgement.broken, (seed, judgement.broken, lost)
    assert any("ingest.db" in line for line in lost) or kept, lost
