import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.runtime.failpoints import POINTS
from tests.faults.failpoints import arm, disarm, is_armed
from tests.support.service_spawner import Spawner
from tests.support.waiting import PATIENCE_S, until
from tests.torture.campaign import Campaign, running_campaign
from tests.torture.load import Rates
from tests.torture.planned_events import Pattern

_SERVICES = {"registry": "subscription", "log": "ingest", "ingest": "ingest", "ledger": "delivery", "delivery": "delivery"}
# A service reaches these points while it starts, so the crash hits its recovery.
_IN_RECOVERY = {"registry.opened", "log.opened", "ledger.opened", "ledger.leased", "delivery.taken_up", "delivery.resumed"}


@pytest_asyncio.fixture(scope="module")
async def campaign(spawner: Spawner, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Campaign]:
    path: Path = tmp_path_factory.mktemp("points") / "campaign"
    seed = random.SystemRandom().randrange(1 << 32)
    async with running_campaign(path, spawner, seed, Rates(emitters=2, per_s=60.0, process_per_s=0.0)) as running:
        yield running


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at_any_point_loses_nothing_and_repeats_only_what_it_must(campaign: Campaign, point: str) -> None:
    """Crashes before and after each commit, acknowledgement, attempt and flush, and during the recovery from such a crash."""
    service = _SERVICES[point.partition(".")[0]]
    async with campaign.load.running():
        before = len(campaign.course.emitted)
        await until(lambda: len(campaign.course.emitted) > before + 25, PATIENCE_S, "load")
        if point in _IN_RECOVERY:
            campaign.kill(service)
        arm(campaign.told, point, 1 if point in _IN_RECOVERY or service == "subscription" else campaign.rng.randint(1, 5))
        if point in _IN_RECOVERY:
            campaign.start_again(service)
        try:
            await _died(campaign, service, point)
        finally:
            disarm(campaign.told)
        campaign.kill(service)
        await campaign.restart(service)
    await campaign.heal()
    await campaign.drained()
    judgement = await campaign.judge()
    assert not judgement.broken, (point, campaign.seed, judgement.broken)


async def _died(campaign: Campaign, service: str, point: str) -> None:
    """Wait until the service has killed itself; a registry meanwhile gets a subscription to write."""
    name = f"at-{point}"
    changing = None
    if service == "subscription" and point not in _IN_RECOVERY:
        changing = asyncio.ensure_future(campaign.subscribe(name, Pattern(0, ("order.paid",)), campaign.receivers[0]))
    await until(lambda: not campaign.system.running(service), PATIENCE_S, f"{service} dies at {point}")
    assert not is_armed(campaign.told)
    if changing is not None:
        campaign.kill(service)
        await campaign.restart(service)
        # Whether the subscription was made before the crash or is made now, the repeated request yields a single subscription.
        await campaign.unsubscribe(await changing)
