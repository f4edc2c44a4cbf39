"""Delivery workers: two processes deliver, each for its share of the subscriptions, behind one address."""

import asyncio
import contextlib
import random
import re
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from services.delivery.ledger.ledger_map import slots_of
from services.runtime.ids import slot_of
from tests.support.consumers import Consumer, new_consumer
from tests.support.service_spawner import shared_spawner
from tests.support.system.processes import System, running_system
from tests.support.waiting import until, until_so
from tests.support.webhook_receivers.receiver import Endpoint, Receiver

WORKERS = 2


@pytest_asyncio.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    settings = {"HOOKTIDE_DELIVERY_WORKERS": str(WORKERS)}
    async with running_system(tmp_path, settings, spawn=shared_spawner().spawn) as running:
        yield running


def worker_processes(system: System) -> dict[int, psutil.Process]:
    """Return the processes of the workers that run, by their numbers."""
    parent = system.services["delivery"].process
    assert parent is not None
    found = {}
    for child in psutil.Process(parent.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            command = child.cmdline()
            if "--worker" in command:
                found[int(command[command.index("--worker") + 1])] = child
    return found


async def subscribed(consumer: Consumer, receiver: Receiver) -> dict[int, tuple[str, Endpoint]]:
    """Make a subscription for each worker; return their ids and sinks by the numbers of the workers."""
    found: dict[int, tuple[str, Endpoint]] = {}
    for number in range(2 * WORKERS):
        endpoint = receiver.endpoint(f"sink-{number}")
        subscription_id = await consumer.subscribe(endpoint, ["shop.*"])
        owner = next(each for each in range(WORKERS) if slot_of(subscription_id) in slots_of(each, WORKERS))
        found.setdefault(owner, (subscription_id, endpoint))
    assert set(found) == set(range(WORKERS))
    return found


async def page(system: System, consumer: Consumer, query: str = "") -> dict[str, Any]:
    status, answer = await system.call("GET", f"/v1/deliveries?limit=200{query}", consumer.key)
    assert status == 200, answer
    return answer


async def admin(system: System, path: str) -> str:
    assert system.http is not None
    async with system.http.get(f"http://{system.services['delivery'].admin}{path}") as answer:
        return await answer.text()


async def test_the_loss_of_a_worker_stops_only_its_own_deliveries_and_loses_none(system: System) -> None:
    async with Receiver() as receiver, system.emitter() as emitter:
        consumer = await new_consumer(system, "two workers")
        subscriptions = await subscribed(consumer, receiver)
        (lost_id, lost_sink), (_, kept_sink) = subscriptions[1], subscriptions[0]
        first = [(await emitter.emit(type="shop.opened", source="/shop", data=n)).event_id for n in range(20)]
        for _, endpoint in subscriptions.values():
            await until(lambda endpoint=endpoint: endpoint.accepted() >= set(first), what=f"everything arrives at {endpoint.name}")
        await until_so(lambda: _all_finished(system, consumer, len(first) * 2 * WORKERS), what="all deliveries are recorded")
        workers = worker_processes(system)
        assert set(workers) == {0, 1}

        # A worker that is stopped answers nothing and is not restarted, so that its absence lasts as long as the test needs it.
        workers[1].send_signal(signal.SIGSTOP)
        second = [(await emitter.emit(type="shop.closed", source="/shop", data=n)).event_id for n in range(20)]
        await until(lambda: kept_sink.accepted() >= {*first, *second}, what="the other worker goes on")
        workers[1].kill()
        # It comes back from its ledger.
        await until(lambda: lost_sink.accepted() >= {*first, *second}, what="the killed worker comes back, and nothing is lost")
        assert worker_processes(system)[0].pid == workers[0].pid
        assert worker_processes(system)[1].pid != workers[1].pid
        for arrivals in lost_sink.by_event().values():
            assert len({arrival.body for arrival in arrivals}) == 1
        await until_so(lambda: _all_finished(system, consumer, 2 * len(first) * 2 * WORKERS), what="all deliveries are recorded again")
        assert {each["state"] for each in (await page(system, consumer, f"&subscription={lost_id}"))["items"]} == {"delivered"}


async def test_a_list_names_the_missing_worker_and_shows_what_its_ledger_holds(system: System) -> None:
    async with Receiver() as receiver, system.emitter() as emitter:
        consumer = await new_consumer(system, "two workers")
        subscriptions = await subscribed(consumer, receiver)
        for number in range(5):
            await emitter.emit(type="shop.opened", source="/shop", data=number)
        count = 5 * 2 * WORKERS
        await until_so(lambda: _all_finished(system, consumer, count), what="all deliveries are recorded")
        worker_processes(system)[1].send_signal(signal.SIGSTOP)
        try:
            await until_so(lambda: _says(system, "/readyz", "worker 1: it does not answer"), what="readiness names the worker")
            found = await page(system, consumer)
            assert (found["partial"], found["missing_workers"], len(found["items"])) == (True, ["worker 1"], count)
            ids = [each["id"] for each in found["items"]]
            assert ids == sorted(ids, reverse=True)
            kept = await page(system, consumer, f"&subscription={subscriptions[0][0]}")
            lost = await page(system, consumer, f"&subscription={subscriptions[1][0]}")
            assert ("partial" in kept, len(kept["items"])) == (False, 5)
            assert (lost["missing_workers"], len(lost["items"])) == (["worker 1"], 5)
            status, one = await system.call("GET", f"/v1/deliveries/{lost['items'][0]['id']}", consumer.key)
            assert (status, one["state"], one["attempt_count"]) == (200, "delivered", 1)
            assert one["attempts"]
            status, refused = await system.call("POST", f"/v1/subscriptions/{subscriptions[1][0]}/test", consumer.key)
            assert (status, refused["reason"]) == (503, "UNAVAILABLE")
            assert "worker 1" in str(refused["detail"])
        finally:
            worker_processes(system)[1].send_signal(signal.SIGCONT)
        await until_so(lambda: _says(system, "/readyz", '"status": "ok"'), what="it is ready again")
        assert "partial" not in await page(system, consumer)
        metrics = await admin(system, "/metrics")
        assert 'hooktide_routed_events_total{worker="0"} 5.0' in metrics
        assert 'hooktide_routed_events_total{worker="1"} 5.0' in metrics
        assert "hooktide_relay_joined_workers 2.0" in metrics


async def test_a_stop_lets_all_workers_drain_and_none_outlives_the_parent(system: System) -> None:
    workers = worker_processes(system)
    assert await system.terminate("delivery") == 0
    assert not any(worker.is_running() for worker in workers.values())
    await system.restart("delivery")
    workers = worker_processes(system)
    system.kill("delivery")
    await until(lambda: not any(worker.is_running() for worker in workers.values()), what="the workers end with their parent")
    await system.restart("delivery")
    assert set(worker_processes(system)) == {0, 1}


async def test_another_number_of_workers_divides_the_ledgers_and_keeps_what_they_hold(system: System) -> None:
    async with Receiver() as receiver, system.emitter() as emitter:
        consumer = await new_consumer(system, "two workers")
        endpoints = [receiver.endpoint(f"sink-{number}") for number in range(4)]
        for endpoint in endpoints:
            await consumer.subscribe(endpoint, ["shop.*"])
        due = set[str]()

        async def all_recorded() -> bool:
            return await _all_finished(system, consumer, 4 * len(due))

        for workers in (2, 3, 1):
            if workers != 2:
                assert await system.terminate("delivery") == 0
                system.settings["HOOKTIDE_DELIVERY_WORKERS"] = str(workers)
                await system.restart("delivery")
                await system.found_again()
            due.update([(await emitter.emit(type="shop.opened", source="/shop", data=n)).event_id for n in range(10)])
            for endpoint in endpoints:
                await until(lambda endpoint=endpoint: endpoint.accepted() >= due, what=f"everything arrives, with {workers} workers")
            await until_so(all_recorded, what="all deliveries are recorded")
            found = await page(system, consumer)
            assert "partial" not in found
            assert len({each["id"] for each in found["items"]}) == 4 * len(due)
        for endpoint in endpoints:
            assert len(endpoint.arrivals) == len(due), "nothing comes twice after an orderly stop"


async def _all_finished(system: System, consumer: Consumer, count: int) -> bool:
    items = (await page(system, consumer))["items"]
    return len(items) == count and all(each["finished_at"] for each in items)


async def _says(system: System, path: str, text: str) -> bool:
    return text in await admin(system, path)


@pytest.mark.slow
async def test_workers_and_their_parent_are_killed_under_load_and_nothing_is_lost(system: System) -> None:
    chance = random.Random(seed := random.randrange(1 << 32))
    async with Receiver() as receiver, system.emitter(timeout=60.0) as emitter:
        consumer = await new_consumer(system, "two workers")
        endpoints = [receiver.endpoint(f"sink-{number}") for number in range(4)]
        for endpoint in endpoints:
            await consumer.subscribe(endpoint, ["shop.*"])
        due, stop = set[str](), asyncio.Event()

        async def emit() -> None:
            while not stop.is_set():
                receipts = await asyncio.gather(*(emitter.emit(type="shop.opened", source="/shop", data=n) for n in range(20)))
                due.update(receipt.event_id for receipt in receipts)
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            group.create_task(emit())
            for _ in range(12):
                before = len(due)
                await until(lambda before=before: len(due) >= before + chance.randint(20, 400), what="more is emitted")
                workers = worker_processes(system)
                if chance.random() < 0.25 or not workers:
                    await system.kill_and_restart("delivery")
                else:
                    workers[chance.choice(list(workers))].kill()
            stop.set()
        for endpoint in endpoints:
            await until(lambda endpoint=endpoint: endpoint.accepted() >= due, what=f"all {len(due)} events at {endpoint.name} ({seed=})")
        await until_so(lambda: _says(system, "/readyz", '"status": "ok"'), what="both workers are ready")
        await until_so(partial(_none_pending, system, consumer), what="all deliveries are recorded")
        assert "Traceback" not in system.log("delivery")


async def _none_pending(system: System, consumer: Consumer) -> bool:
    found = await page(system, consumer, "&state=pending")
    return not found["items"] and "partial" not in found and "not_listed" not in found


async def test_a_reload_reaches_every_worker_and_divides_the_limits_anew(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("HOOKTIDE_LOG_LEVEL=info\n")
    settings = {"HOOKTIDE_DELIVERY_WORKERS": str(WORKERS), "HOOKTIDE_SETTINGS_FILE": str(file)}
    async with running_system(tmp_path / "data", settings, spawn=shared_spawner().spawn) as system:
        await new_consumer(system, "makes the session")
        parent = system.services["delivery"].process
        assert parent is not None
        file.write_text("HOOKTIDE_DELIVERY_IN_FLIGHT_MAX=7\n")
        psutil.Process(parent.pid).send_signal(signal.SIGHUP)
        for number in range(WORKERS):
            applied = f'hooktide_reloads_total{{worker="{number}",outcome="applied"}} 1.0'
            await until_so(partial(_says, system, "/metrics", applied), what=f"worker {number} has the new settings")
        assert system.log("delivery").count("changed=HOOKTIDE_DELIVERY_IN_FLIGHT_MAX") == 1 + WORKERS


async def test_a_worker_that_cannot_start_ends_the_service_with_its_message(tmp_path: Path) -> None:
    system = System(tmp_path, {"HOOKTIDE_DELIVERY_WORKERS": "2", "HOOKTIDE_SINK_DENY": "not-an-address"})
    try:
        system.launch("delivery")
        assert await asyncio.wait_for(system.ended("delivery"), 60) == 2
        last = system.log("delivery").splitlines()[-1]
        assert re.match(r"hooktide delivery: worker [01]: HOOKTIDE_SINK_ALLOW or HOOKTIDE_SINK_DENY: 'not-an-address' is not", last)
        assert not (tmp_path / "delivery.ready").exists()
    finally:
        await system.close()


async def test_more_than_sixteen_workers_are_refused(tmp_path: Path) -> None:
    system = System(tmp_path, {"HOOKTIDE_DELIVERY_WORKERS": "17"})
    try:
        system.launch("delivery")
        assert await asyncio.wait_for(system.ended("delivery"), 60) == 2
        assert "HOOKTIDE_DELIVERY_WORKERS=17: Input should be less than or equal to 16" in system.log("delivery")
    finally:
        await system.close()
