"""Loops: a sink that leads back to Hooktide's own gateway, with a key that would be valid there."""

from tests.support.consumers import Consumer, new_consumer
from tests.support.system.processes import System
from tests.support.waiting import until
from tests.support.webhook_receivers.receiver import Receiver


async def subscriptions_of(consumer: Consumer) -> list[dict[str, object]]:
    _, page = await consumer.system.call("GET", "/v1/subscriptions?limit=200", consumer.key)
    items = page["items"]
    assert isinstance(items, list)
    return items


async def test_a_webhook_to_our_own_gateway_does_nothing_and_is_not_tried_again(system: System, receiver: Receiver) -> None:
    """The event's data would make one more such subscription at each delivery: one would become two, and two would become four."""
    consumer = await new_consumer(system, "ouroboros")
    wanted: dict[str, object] = {
        "sink": f"http://{system.services['gateway'].listen}/v1/subscriptions",
        "types": ["loop.closed"],
        "sinkcredential": {"credentialtype": "ACCESSTOKEN", "accesstoken": consumer.key},
        "protocolsettings": {"content_mode": "data_only"},
    }
    status, made = await system.call("POST", "/v1/subscriptions", consumer.key, wanted)
    assert status == 201
    endpoint = receiver.endpoint("beside-the-loop")
    await consumer.subscribe(endpoint, ["loop.closed"])
    async with system.emitter() as emitter:
        for _ in range(3):
            await emitter.emit(type="loop.closed", source="/shop", data=wanted)
    await until(lambda: len(endpoint.arrivals) == 3, 20, "the neighbour's webhooks")
    exhausted: list[dict[str, object]] = []
    while len(exhausted) < 3:
        exhausted = await consumer.deliveries(state="exhausted", subscription=str(made["id"]))
    assert len(await subscriptions_of(consumer)) == 2
    _, shown = await system.call("GET", f"/v1/deliveries/{exhausted[0]['id']}", consumer.key)
    attempts = shown["attempts"]
    assert isinstance(attempts, list)
    (attempt,) = attempts
    assert (attempt["outcome"], attempt["status"]) == ("status", 508)
    assert "LOOP_DETECTED" in attempt["response_body"]
    assert consumer.key not in str(shown)
