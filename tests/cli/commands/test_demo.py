import io
import signal

import psutil
import pytest
from rich.console import Console

from services.cli.demo.shop_events import ACCOUNTING, WAREHOUSE, ShopEvent, is_due, shop_events
from services.cli.demo.tally import Tally
from services.cli.demo.terminal_view import LiveView, Shown
from tests.support.commands import clean_environ, hooktide, running


def test_a_day_in_the_shop_is_the_same_every_time_and_has_everything_in_it() -> None:
    events = shop_events(200)
    assert events == shop_events(200)
    assert len(events) == 200
    assert {event.type for event in events} == {
        *("order.created", "order.paid", "order.refunded", "invoice.issued", "shipment.sent", "stock.low"),
    }
    assert {event.audience for event in events} == {None, ACCOUNTING, WAREHOUSE}


@pytest.mark.parametrize(
    ("event_type", "audience", "due"),
    [
        ("order.paid", None, {ACCOUNTING, WAREHOUSE}),
        ("order.paid", ACCOUNTING, {ACCOUNTING}),
        ("order.created", None, {WAREHOUSE}),
        ("order.created", ACCOUNTING, set()),
        ("invoice.issued", None, {ACCOUNTING}),
        ("invoice", None, set()),
        ("stock.low", None, {WAREHOUSE}),
        ("stock.lower", None, set()),
    ],
)
def test_an_event_is_due_by_type_and_audience(event_type: str, audience: str | None, due: set[str]) -> None:
    event = ShopEvent(event_type, "s", {}, audience)
    assert {name for name in (ACCOUNTING, WAREHOUSE) if is_due(event, name)} == due


def test_the_tally_counts_what_is_due_whatever_comes_first() -> None:
    tally = Tally()
    assert tally.arrive(ACCOUNTING, "evt_1", verified=True) == 1
    tally.emit(ShopEvent("order.paid", "s", {}), "evt_1")
    assert tally.last_line() == "demo: 1 emitted, 2 due, 1 delivered, 1 verified, 1 lost"
    assert not tally.is_perfect
    assert tally.arrive(WAREHOUSE, "evt_1", verified=True) == 1
    assert tally.arrive(WAREHOUSE, "evt_1", verified=True) == 2
    assert (tally.repeated, tally.misdirected, tally.is_perfect) == (1, 0, True)


@pytest.mark.parametrize("height", [10, 24, 50])
def test_the_live_picture_keeps_within_the_terminal(height: int) -> None:
    view = LiveView(Tally(), 7, height)
    for number in range(40):
        view.step(f"step {number} " + "long " * 30)
        view.webhook(Shown(WAREHOUSE, "order.created", f"order-{number}", "evt_1", "1", None, 1))
    console = Console(file=io.StringIO(), width=80, height=height)
    with console.capture() as shown:
        console.print(view.picture())
    lines = shown.get().splitlines()
    assert len(lines) < max(height, 11)
    assert {"emitted", "delivered", "verified"} <= {line.split()[0] for line in lines}
    assert "order-39" in shown.get()


def test_one_bad_signature_or_one_wrong_receiver_spoils_the_tally() -> None:
    tally = Tally()
    tally.emit(ShopEvent("order.created", "s", {}), "evt_1")
    tally.arrive(WAREHOUSE, "evt_1", verified=True)
    tally.arrive(WAREHOUSE, "evt_1", verified=False)
    assert (tally.delivered, tally.verified, tally.is_perfect) == (1, 0, False)
    tally = Tally()
    tally.emit(ShopEvent("invoice.issued", "s", {}), "evt_1")
    tally.arrive(ACCOUNTING, "evt_1", verified=True)
    tally.arrive(WAREHOUSE, "evt_1", verified=True)
    assert (tally.misdirected, tally.is_perfect) == (1, False)


async def test_the_demo_loses_nothing_and_minds_no_settings_of_the_user() -> None:
    """Four services and a crash in the middle; the last line says that every due event has come."""
    ended = await hooktide("demo", "--events", "40", environ=clean_environ(HOOKTIDE_INGEST_LISTEN="nonsense"))
    assert ended.code == 0, ended
    due = sum(is_due(event, name) for event in shop_events(40) for name in (ACCOUNTING, WAREHOUSE))
    lines = ended.out.splitlines()
    assert lines[-1] == f"demo: 40 emitted, {due} due, {due} delivered, {due} verified, 0 lost"
    assert sum("signature verified" in line for line in lines) >= due
    assert sum("kill -9" in line for line in lines) == 1
    assert ended.err == ""


async def test_a_demo_that_is_broken_off_says_so_and_leaves_nothing_running() -> None:
    async with running("demo", "--events", "2000") as command:
        await command.line("signature verified")
        services = psutil.Process(command.process.pid).children()
        ended = await command.end(signal.SIGINT)
    assert (ended.code, ended.err) == (1, "demo: stopped before its end\n")
    assert not any(service.is_running() and service.status() != psutil.STATUS_ZOMBIE for service in services)
