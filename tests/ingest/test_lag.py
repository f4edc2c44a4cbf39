import asyncio
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from services.eventlog.errors import LogFullError
from services.ingest.lag import LagMonitor
from tests.support.event_logs import LARGE, RETENTION_S, appended, everything, new_event, new_events, opened
from tests.support.waiting import until


async def test_the_age_of_the_oldest_unrouted_event_grows_between_two_looks(tmp_path: Path) -> None:
    async with opened(tmp_path / "ingest.db") as it:
        monitor = LagMonitor(it.log, it.clock)
        await monitor.look()
        assert monitor.age_s() == 0.0
        receipts = await appended(it.log, new_events(range(3)))
        await monitor.look()
        it.clock.time_s += 30
        assert monitor.age_s() == 30.0
        assert REGISTRY.get_sample_value("hooktide_log_unrouted_events") == 3
        await it.log.report_routed(everything(receipts[-1].position))
        await monitor.look()
        assert monitor.age_s() == 0.0
        assert REGISTRY.get_sample_value("hooktide_log_unrouted_events") == 0


async def test_a_log_that_was_full_is_looked_at_until_it_has_room(tmp_path: Path) -> None:
    async with opened(tmp_path / "ingest.db", bytes_max=1) as it:
        with pytest.raises(LogFullError):
            await it.log.append([new_event(1)])
        assert it.log.why_refusing
        it.log.change_limits(bytes_max=LARGE, retention_s=RETENTION_S)
        running = asyncio.ensure_future(LagMonitor(it.log, it.clock).run())
        await until(lambda: it.log.why_refusing is None)
        running.cancel()
        await asyncio.wait([running])
