"""Notices: with real services, owners hear by events of Hooktide's own what becomes of their subscriptions and deliveries."""

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path
from typing import cast

import pytest
from hooktide.subscription.v1 import subscription_pb2

from services.delivery.errors import LeaseLostError
from services.runtime import failpoints
from services.runtime.rpc.channel_and_server import service_metadata
from tests.delivery.system import State, System
from tests.support.events import cloud_event
from tests.support.system.registry import TOKEN
from tests.support.waiting import PATIENCE_S, until
from tests.support.webhook_receivers.receiver import Arrival, Receiver

EXHAUSTED, DELIVERED = State.DELIVERY_STATE_EXHAUSTED, State.DELIVERY_STATE_DELIVERED
ONCE = {"HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": "0.05"}
"""Settings by which a delivery has two attempts."""


def told(hooks: Receiver, type_: str = "") -> list[dict[str, object]]:
    """Return the notices that have arrived, of one type or all."""
    bodies = [json.loads(hook.body) for hook in hooks.arrivals]
    return [body for body in bodies if body["type"].startswith("hooktide.") and type_ in {"", body["type"]}]


def refuses(hook: Arrival) -> int:
    """Answer 500 to events, and 200 to notices."""
    return 200 if json.loads(hook.body)["type"].startswith("hooktide.") else 500


async def test_an_exhausted_delivery_is_told_once_to_the_subscriptions_of_its_owner_that_name_it(system: System, hooks: Receiver) -> None:
    """Neither a subscription to every type nor another consumer's gets the notice."""
    hooks.answer = refuses
    stranger = await system.registry.consumer()
    async with system.delivering(**ONCE) as delivering, Receiver() as others:
        failing = (await system.subscribe(hooks.url("/failing"), "order.*")).subscription
        await system.subscribe(hooks.url("/notices"), "hooktide.delivery.exhausted")
        await system.subscribe(others.url("/all"), "*")
        await system.subscribe(others.url("/none"))
        await system.subscribe(others.url("/stranger"), "hooktide.*", consumer_id=stranger)
        (event_id,) = await system.publish(cloud_event("7"))
        await until(lambda: len(told(hooks)) == 1)
        (found,) = await delivering.until(1, state=EXHAUSTED)
        # What is published afterwards arrives after everything that was routed before it.
        await system.publish(cloud_event("8", "invoice.issued"))
        await until(lambda: len(others.arrivals) == 4)
        assert not told(others)
    (notice,) = told(hooks)
    assert notice["source"] == f"/hooktide/{await registry_id(system)}"
    assert (notice["subject"], notice["audience"]) == (failing.id, system.consumer_id)
    assert notice["data"] == {
        "subscription_id": failing.id,
        "state": "exhausted",
        "since": notice["time"],
        "delivery_id": found.id,
        "event_id": event_id,
        "event_type": "order.created",
        "attempts": 2,
        "last_status": 500,
        "reason": "the sink answered with the status 500",
    }


async def registry_id(system: System) -> str:
    """Return the id of the registry, as its watch tells it."""
    request = subscription_pb2.WatchSubscriptionsRequest()
    call = system.registry.subscriptions.WatchSubscriptions(request, metadata=service_metadata(TOKEN), timeout=20)
    async for item in call:
        if item.HasField("checkpoint"):
            return str(item.checkpoint.registry_id)
    raise AssertionError


async def test_notices_that_cannot_be_delivered_make_no_notices(system: System, hooks: Receiver) -> None:
    """A sink that refuses notices gets one attempt series for each event's notice, and no notice of those."""
    hooks.answer = lambda _hook: 500
    async with system.delivering(**ONCE) as delivering:
        await system.subscribe(hooks.url("/failing"), "order.*")
        await system.subscribe(hooks.url("/notices"), "hooktide.*")
        await system.publish(*(cloud_event() for _ in range(3)))
        found = await delivering.until(6, state=EXHAUSTED)
        assert sum(each.event_type == "hooktide.delivery.exhausted" for each in found) == 3
        await system.subscribe(hooks.url("/barrier"), "barrier")
        await system.publish(cloud_event("b", "barrier"))
        await delivering.until(7, state=EXHAUSTED)
        found = await delivering.until(8, state=EXHAUSTED)
        assert {each.event_type for each in found} == {"order.created", "barrier", "hooktide.delivery.exhausted"}


@pytest.mark.parametrize(
    ("point", "service", "query"),
    [
        ("delivery.after_flush", "delivery", "SELECT count(*) FROM outbox"),
        ("ledger.before_commit", "ingest", "SELECT count(*) FROM events WHERE type LIKE 'hooktide.%'"),
    ],
    ids=["before it is published", "before it leaves the outbox"],
)
async def test_a_crash_loses_no_notice_and_tells_none_twice(
    system: System, hooks: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, point: str, service: str, query: str
) -> None:
    """The worker ends right after the flush that wrote the notice, or after ingest has the notice and before the outbox knows."""

    def crash(reached: str) -> None:
        if reached == point:
            with contextlib.closing(sqlite3.connect(tmp_path / f"{service}.db")) as database:
                if database.execute(query).fetchone()[0]:
                    raise LeaseLostError(point)

    hooks.answer = refuses
    await system.subscribe(hooks.url("/notices"), "hooktide.*")
    await system.subscribe(hooks.url("/failing"), "order.*")
    with monkeypatch.context() as patched:
        patched.setattr(failpoints, "reached", crash)
        async with system.delivering(**ONCE) as delivering:
            await system.publish(cloud_event("7"))
            await asyncio.wait_for(delivering.process.stopping.wait(), PATIENCE_S)
    async with system.delivering(**ONCE) as delivering:
        await system.publish(cloud_event("8"))
        await delivering.until(2, state=DELIVERED)
    # What the first worker sent and had not recorded may have come twice, as the same event.
    events = {(json.loads(hook.body)["id"], hook.event_id) for hook in hooks.arrivals if hook.path == "/notices"}
    assert len({own_id for own_id, _ in events}) == len(events) == 2


async def test_a_sink_that_fails_and_comes_back_is_told_once_each(system: System, hooks: Receiver) -> None:
    """The breaker opens several times in one failing period, which is one notice."""
    hooks.answer = refuses
    async with system.delivering(HOOKTIDE_DELIVERY_BREAKER_SECONDS="0.05") as delivering:
        failing = (await system.subscribe(hooks.url("/failing"), "order.*")).subscription
        await system.subscribe(hooks.url("/notices"), "hooktide.subscription.*")
        await system.publish(*(cloud_event() for _ in range(12)))
        await until(lambda: len(told(hooks)) == 1)
        requests = len(hooks.arrivals)
        await until(lambda: len(hooks.arrivals) >= requests + 3, what="probes")
        hooks.answer = lambda _hook: 200
        await until(lambda: len(told(hooks)) == 2)
        await delivering.until(14, state=DELIVERED)
        await system.publish(cloud_event())
        await delivering.until(15, state=DELIVERED)
    first, second = told(hooks)
    assert [each["type"] for each in (first, second)] == ["hooktide.subscription.failing", "hooktide.subscription.recovered"]
    assert first["subject"] == second["subject"] == failing.id
    data, later = cast("dict[str, object]", first["data"]), cast("dict[str, object]", second["data"])
    assert (data["state"], data["last_status"], data["reason"]) == ("failing", 500, "the sink answered with the status 500")
    assert (later["state"], later["failing_since"]) == ("active", data["since"])


async def test_a_sink_that_answers_410_is_disabled_its_queue_is_cancelled_and_its_owner_is_told_once(
    system: System, hooks: Receiver
) -> None:
    hooks.answer = lambda hook: 410 if hook.path == "/gone" else 200
    async with system.delivering() as delivering:
        gone = (await system.subscribe(hooks.url("/gone"), "order.*")).subscription
        await system.subscribe(hooks.url("/notices"), "hooktide.subscription.disabled")
        await system.publish(*(cloud_event() for _ in range(5)))
        await until(lambda: len(told(hooks)) == 1)
        await delivering.until(5, state=State.DELIVERY_STATE_CANCELLED, subscription_id=gone.id)
        await delivering.until(1, state=DELIVERED)
    (notice,) = told(hooks)
    assert (notice["type"], notice["subject"]) == ("hooktide.subscription.disabled", gone.id)
    data = cast("dict[str, object]", notice["data"])
    assert data["reason"] == "The sink answered 410 Gone; set another sink, or resume the subscription."
    async with system.delivering() as delivering:
        # The next worker finds the subscription disabled: the log knows the notice.
        await system.subscribe(hooks.url("/other"), "order.*")
        await system.publish(cloud_event())
        await until(lambda: any(hook.path == "/other" for hook in hooks.arrivals))
        await delivering.until(2, state=DELIVERED)
    assert len(told(hooks)) == 1


async def test_a_sink_that_fails_for_too_long_is_disabled(system: System, hooks: Receiver) -> None:
    """Too long is half a second here, by the operator's setting."""
    hooks.answer = refuses
    settings = {"HOOKTIDE_DELIVERY_DISABLE_AFTER_HOURS": str(0.5 / 3600), "HOOKTIDE_DELIVERY_BREAKER_SECONDS": "0.05"}
    async with system.delivering(**settings) as delivering:
        failing = (await system.subscribe(hooks.url("/failing"), "order.*")).subscription
        await system.subscribe(hooks.url("/notices"), "hooktide.subscription.disabled")
        await system.publish(*(cloud_event() for _ in range(12)))
        await until(lambda: len(told(hooks)) == 1)
        await delivering.until(12, state=State.DELIVERY_STATE_CANCELLED, subscription_id=failing.id)
    data = cast("dict[str, object]", told(hooks)[0]["data"])
    assert str(data["reason"]).startswith("Every attempt has failed since ")
    assert "the sink answered with the status 500" in str(data["reason"])


async def test_an_open_breaker_and_its_notice_outlive_a_restart(system: System, hooks: Receiver) -> None:
    """The next worker waits out the breaker, and tells of the same failing period no second time."""
    hooks.answer = refuses
    settings = {"HOOKTIDE_DELIVERY_BREAKER_SECONDS": "600"}
    async with system.delivering(**settings) as delivering:
        await system.subscribe(hooks.url("/failing"), "order.*")
        await system.subscribe(hooks.url("/notices"), "hooktide.subscription.*")
        await system.publish(*(cloud_event() for _ in range(12)))
        await until(lambda: len(told(hooks)) == 1)
        await delivering.until(1, state=DELIVERED)
    requests = len(hooks.arrivals)
    async with system.delivering(**settings) as delivering:
        await system.subscribe(hooks.url("/other"), "invoice.*")
        await system.publish(cloud_event(type_="invoice.issued"))
        await until(lambda: any(hook.path == "/other" for hook in hooks.arrivals))
        await delivering.until(12, state=State.DELIVERY_STATE_PENDING)
    assert (len(told(hooks)), {hook.path for hook in hooks.arrivals[requests:]}) == (1, {"/other"})
