"""Pauses, over REST with all four services as processes: nothing is sent during a pause, and everything after it."""

import asyncio

import aiohttp
import pytest

from tests.support.consumers import new_consumer
from tests.support.system.processes import System
from tests.support.waiting import PATIENCE_S, until
from tests.support.webhook_receivers.receiver import Receiver

EVENTS = 20


async def ready_state(system: System) -> dict[str, str]:
    """Return what delivery's /readyz answers."""
    async with aiohttp.ClientSession() as http, http.get(f"http://{system.services['delivery'].admin}/readyz") as answer:
        assert answer.status == 200
        return dict(await answer.json())


@pytest.mark.parametrize("what", ["subscription", "consumer", "system"])
async def test_nothing_is_sent_during_a_pause_and_everything_after_it(system: System, receiver: Receiver, what: str) -> None:
    """Another consumer's subscription gets its events during a pause of a subscription or consumer."""
    consumer, other = await new_consumer(system, f"paused-{what}"), await new_consumer(system, f"going-{what}")
    endpoint, beside = receiver.endpoint(f"paused-{what}"), receiver.endpoint(f"going-{what}")
    subscription_id = await consumer.subscribe(endpoint, [f"pause.{what}"])
    await other.subscribe(beside, [f"pause.{what}"])
    path = {
        "subscription": f"/v1/subscriptions/{subscription_id}",
        "consumer": f"/v1/consumers/{consumer.id}",
        "system": "/v1/system",
    }[what]
    key = consumer.key if what == "subscription" else system.first.admin
    async with system.emitter() as emitter:
        status, answer = await system.call("POST", f"{path}/pause", key)
        assert status == 200, answer
        try:
            sent = {(await emitter.emit(type=f"pause.{what}", source="/shop", data={"n": n})).event_id for n in range(EVENTS)}
            if what == "system":
                status, _ = await system.call("POST", f"/v1/subscriptions/{subscription_id}/test", consumer.key)
                assert status == 200, "a test event is no delivery"
                endpoint.arrivals.clear()
                await asyncio.sleep(1.0)  # webhooks that ignored the pause would arrive within milliseconds
                assert beside.arrivals == []
                assert (await ready_state(system))["status"] == "degraded"
            else:
                await until(lambda: beside.accepted() >= sent, PATIENCE_S, "the other's webhooks")
            assert endpoint.arrivals == []
        finally:
            status, answer = await system.call("POST", f"{path}/resume", key)
        assert status == 200, answer
    await until(lambda: endpoint.accepted() >= sent and beside.accepted() >= sent, PATIENCE_S, "the webhooks")
    assert len(endpoint.arrivals) == EVENTS
