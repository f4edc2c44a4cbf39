"""Row 63: the delivery service is frozen for a while, as on a suspended machine or in a paused container, and then goes on."""

import asyncio
import os
import signal
import time

from hooktide.delivery.v1 import delivery_pb2 as pb
from hooktide.ingest.v1 import ingest_pb2

from services.delivery.dispatch.concurrency_limit import LIMIT_FIRST
from services.runtime.rpc.channel_and_server import service_metadata
from tests.faults.faulty_system import FaultySystem, said
from tests.support.events import cloud_event
from tests.support.waiting import PATIENCE_S, until, until_so
from tests.torture.campaign import eventually

# Longer than a service may stand still without asking the registry again.
_FROZEN_S = 1.5
_EVENTS = 150


async def test_after_a_freeze_nothing_is_sent_to_a_subscription_that_was_deleted_meanwhile(own_faulty: FaultySystem) -> None:
    """Requests that were under way at the freeze are answered when the service goes on, and no request follows them."""
    faulty = own_faulty
    endpoint = faulty.receiver.endpoint("frozen")
    subscription_id = await faulty.consumer.subscribe(endpoint, ["frozen"])
    endpoint.gate = asyncio.Event()
    events = [cloud_event(str(number), "frozen", source="/frozen") for number in range(_EVENTS)]
    request = ingest_pb2.PublishBatchRequest(events=events)
    await said(faulty.system.ingest.PublishBatch(request, metadata=service_metadata(faulty.system.first.emitter)))
    await until(lambda: endpoint.begun >= LIMIT_FIRST, PATIENCE_S, "as many attempts as there may be at once at first")
    process = faulty.system.services["delivery"].process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    frozen_at = time.monotonic()
    try:
        # All its requests are answered now, so that the first thing that it finds is room for more.
        endpoint.gate.set()
        # Its watch ends before the deletion, and it hears of the deletion only when the registry is back.
        await faulty.kill_and_restart("subscription")
        await eventually(lambda: faulty.consumer.unsubscribe(subscription_id))
        faulty.system.kill("subscription")
        await until(lambda: time.monotonic() - frozen_at >= _FROZEN_S, PATIENCE_S, "it is frozen for long")
        begun = endpoint.begun
    finally:
        os.kill(process.pid, signal.SIGCONT)

    async def delivered() -> bool:
        return [each.state for each in await faulty.delivered("frozen")].count(pb.DELIVERY_STATE_DELIVERED) >= begun

    await until_so(delivered, PATIENCE_S, "what was answered is recorded")
    await faulty.system.restart("subscription")

    async def ended() -> bool:
        return pb.DELIVERY_STATE_PENDING not in [each.state for each in await faulty.delivered("frozen")]

    await until_so(ended, PATIENCE_S, "every delivery has ended")
    assert endpoint.begun == begun < _EVENTS
