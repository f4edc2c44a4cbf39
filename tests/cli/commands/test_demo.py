import signal

import psutil

from services.cli.demo.shop_events import ACCOUNTING, WAREHOUSE, is_due, shop_events
from tests.support.commands import clean_environ, hooktide, running


async def test_the_demo_loses_nothing_and_minds_no_settings_of_the_user() -> None:
    """Four services and a crash in the middle; the last line says that every due event has come."""
    ended = await hooktide("demo", "--events", "40", environ=clean_environ(HOOKTIDE_INGEST_LISTEN="nonsense"))
    assert ended.code == 0, ended
    due = sum(is_due(event, name) for event in shop_events(40) for name in (ACCOUNTING, WAREHOUSE))
    lines = ended.out.splitlines()
    assert lines[-1] == f"demo: 40 emitted, {due} expected, {due} delivered, {due} verified, 0 lost"
    assert sum("signature verified" in line for line in lines) >= due
    assert sum("kill -9" in line for line in lines) == 1
    assert ended.err == ""


async def test_a_demo_that_is_broken_off_says_so_and_leaves_nothing_running() -> None:
    async with running("demo", "--events", "2000") as command:
        await command.line("signature verified")
        services = psutil.Process(command.process.pid).children()
        ended = await command.end(signal.SIGINT)
    assert (ended.code, ended.err) == (1, "demo: stopped before it was finished\n")
    assert not any(service.is_running() and service.status() != psutil.STATUS_ZOMBIE for service in services)
