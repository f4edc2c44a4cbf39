"""Rows 62, 64 and 65: two processes on one store, a store whose file disappears, and a log that no longer fits the ledger."""

import contextlib
import shutil
import sqlite3

from hooktide.delivery.v1 import delivery_pb2 as pb

from tests.faults.faulty_system import FaultySystem
from tests.support.commands import clean_environ, hooktide
from tests.support.storage_faults import take_away
from tests.support.system.processes import Service
from tests.support.waiting import PATIENCE_S, until, until_so


async def test_a_second_delivery_service_on_one_ledger_is_refused(own_faulty: FaultySystem) -> None:
    """The second service stops with a one-line error before it sends anything; the first one goes on."""
    system = own_faulty.system
    endpoint = await own_faulty.subscribed("one.ledger")
    first, system.services["delivery"] = system.services["delivery"], Service("delivery")
    try:
        log = len(system.log("delivery"))
        system.launch("delivery")
        assert await system.ended("delivery") == 2
        said = [line for line in system.log("delivery")[log:].splitlines() if line.startswith("hooktide delivery: ")]
    finally:
        system.services["delivery"] = first
    assert said == [f"hooktide delivery: {system.data_dir}/delivery.db is in use by another process; stop that process first"]
    receipt = await own_faulty.publish("one.ledger", "1")
    await until(lambda: receipt.event_id in endpoint.accepted(), PATIENCE_S, "the event")
    assert len(endpoint.arrivals) == 1


async def test_a_delivery_service_whose_ledger_is_removed_stops(own_faulty: FaultySystem) -> None:
    """It stops with one line and no traceback. It goes on after the file is back; a new ledger would send everything again."""
    system = own_faulty.system
    endpoint = await own_faulty.subscribed("gone.ledger")
    first = await own_faulty.publish("gone.ledger", "1")
    await own_faulty.in_state("gone.ledger", pb.DELIVERY_STATE_DELIVERED, 1)
    ledger, kept = system.data_dir / "delivery.db", own_faulty.told / "kept.db"
    with contextlib.closing(sqlite3.connect(ledger)) as connection, contextlib.closing(sqlite3.connect(kept)) as copy:
        connection.backup(copy)
    take_away(ledger, "removed")
    await own_faulty.publish("gone.ledger", "2")
    assert await system.ended("delivery") == 1
    said = system.log("delivery")
    assert "delivery.db was removed, replaced or moved" in said
    assert "Traceback" not in said
    system.launch("delivery")
    assert await system.ended("delivery") == 2
    assert f"remove {ledger}.lock to begin with an empty database" in system.log("delivery")
    shutil.copy(kept, ledger)
    for left in ("-wal", "-shm"):
        ledger.with_name(f"{ledger.name}{left}").unlink(missing_ok=True)
    await system.restart("delivery")
    await until(lambda: len(endpoint.accepted()) == 2, PATIENCE_S, "both events")
    assert [arrival.event_id for arrival in endpoint.arrivals].count(first.event_id) == 1


async def test_a_log_that_was_deleted_is_told_of_wherever_a_person_looks(own_faulty: FaultySystem) -> None:
    """One line reports it; the lag grows although delivery reads nothing."""
    faulty, system = own_faulty, own_faulty.system
    endpoint = await faulty.subscribed("deleted.log")
    await faulty.publish("deleted.log", "1")
    await until(endpoint.accepted, PATIENCE_S, "the event")
    assert await system.terminate("ingest") == 0
    take_away(system.data_dir / "ingest.db", "removed")
    await system.restart("ingest")
    await faulty.published("deleted.log", "2")

    async def told() -> bool:
        return "routing is stopped" in await faulty.not_ready("delivery")

    await until_so(told, PATIENCE_S, "delivery is not ready")
    assert system.log("delivery").count("event=routing.stopped") == 1

    async def degraded() -> bool:
        return "delivery is not ready: routing is stopped" in await faulty.degraded("gateway")

    await until_so(degraded, PATIENCE_S, "the gateway tells of it")
    for service, name in (("delivery", "hooktide_unrouted_age_seconds"), ("ingest", "hooktide_log_unrouted_age_seconds")):
        before = await faulty.metric(service, name)

        async def grows(service: str = service, name: str = name, before: float = before) -> bool:
            return await faulty.metric(service, name) > max(1.0, before)

        await until_so(grows, PATIENCE_S, f"{name} grows")
    assert await faulty.metric("ingest", "hooktide_log_unrouted_events") == 1

    environ = clean_environ(HOOKTIDE_DELIVERY_TARGET=system.services["delivery"].listen, HOOKTIDE_SERVICE_TOKEN=system.token)
    looked = await hooktide("repair", "--dry-run", "--json", environ=environ)
    assert (looked.code, looked.json["routed_events"], looked.json["repeated_events"], looked.json["repaired"]) == (0, 1, 0, False)
    asked = await hooktide("repair", environ=environ)
    assert (asked.code, "give --yes" in asked.err) == (2, True)
    assert len(endpoint.accepted()) == 1
    done = await hooktide("repair", "--yes", environ=environ)
    assert done.code == 0, done
    assert "Repaired: 1 events are being routed." in done.out
    await until(lambda: len(endpoint.accepted()) == 2, PATIENCE_S, "the event of the new log")
    assert len(endpoint.arrivals) == 2
    assert await faulty.not_ready("delivery") == ""
    assert "nothing to repair" in (await hooktide("repair", environ=environ)).out


async def test_what_is_not_routed_is_known_while_delivery_is_away(own_faulty: FaultySystem) -> None:
    """Ingest counts them even after a restart, from the positions that delivery has released."""
    faulty = own_faulty
    endpoint = await faulty.subscribed("away.delivery")
    first = await faulty.publish("away.delivery", "1")
    await until(lambda: first.event_id in endpoint.accepted(), PATIENCE_S, "the event")

    async def unrouted(counts: range) -> None:
        async def so() -> bool:
            return await faulty.metric("ingest", "hooktide_log_unrouted_events") in counts

        await until_so(so, PATIENCE_S, f"{counts} events are not routed")

    faulty.system.kill("delivery")
    for number in range(3):
        await faulty.publish("away.delivery", f"later-{number}")
    # The first event is routed; delivery may or may not have reported that.
    await unrouted(range(3, 5))
    await faulty.system.kill_and_restart("ingest")
    await unrouted(range(3, 5))
    await faulty.system.restart("delivery")
    await unrouted(range(1))
