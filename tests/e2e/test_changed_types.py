"""Changed types, over REST with all four services as processes: which `types` apply to events that were acknowledged before a change."""

import asyncio

from hooktide.delivery.v1 import delivery_pb2 as pb

from tests.support.consumers import new_consumer
from tests.support.system.processes import System
from tests.support.waiting import PATIENCE_S, until
from tests.support.webhook_receivers.receiver import Receiver


async def test_narrower_types_govern_what_is_not_routed_yet_and_leave_what_is(system: System, receiver: Receiver) -> None:
    """The new types apply to unrouted events that were acknowledged before the answer to the PATCH, and to all events after it."""
    consumer, endpoint = await new_consumer(system, "narrow"), receiver.endpoint("narrow")
    endpoint.status = lambda: 503
    subscription_id = await consumer.subscribe(endpoint, ["narrow.former", "narrow.kept"])
    async with system.emitter() as emitter:

        async def emitted(event_type: str) -> str:
            """Emit an event and return its id; the events are routed in order."""
            return (await emitter.emit(type=event_type, source="/narrow", partitionkey="one")).event_id

        routed = await emitted("narrow.former")
        await _until_recorded(system, subscription_id, {routed})
        system.kill("delivery")
        await emitted("narrow.former")
        waiting = await emitted("narrow.kept")
        path = f"/v1/subscriptions/{subscription_id}"
        status, changed = await system.call("PATCH", path, consumer.key, {"types": ["narrow.kept"]})
        assert (status, changed["types"]) == (200, ["narrow.kept"])
        await emitted("narrow.former")
        later = await emitted("narrow.kept")
    endpoint.status = lambda: 200
    await system.restart("delivery")
    expected = {routed, waiting, later}
    await until(lambda: endpoint.accepted() >= expected, PATIENCE_S, "the others")
    assert await _until_recorded(system, subscription_id, expected) == expected
    assert {arrival.event_id for arrival in endpoint.arrivals} == expected


async def _until_recorded(system: System, subscription_id: str, expected: set[str]) -> set[str]:
    """Wait until the ledger has deliveries of the expected events to a subscription; return all events that it has deliveries of."""
    request = pb.ListDeliveriesRequest(consumer_id="*", subscription_id=subscription_id, page_size=200)
    found: set[str] = set()
    async with asyncio.timeout(PATIENCE_S):
        while not found >= expected:
            listed = await system.deliveries.ListDeliveries(request, metadata=system.metadata, wait_for_ready=True)
            found = {delivery.event_id for delivery in listed.deliveries}
            await asyncio.sleep(0.02)
    return found
