from tests.support.consumers import new_consumer
from tests.support.memory import MB, resident_bytes, sampled
from tests.support.numbered_events import publish_numbered
from tests.support.service_databases import number, size_on_disk
from tests.support.system.processes import System
from tests.support.webhook_receivers.order_receiver import OrderReceiver

_WARM, _EVENTS = 4_000, 9_000
_SIZE_BYTES = 10_000
# Together the missed events take 90 MB. What ingest keeps for its followers rises and falls by 16 MB, and freed memory is kept up to 32 MB.
_GROWTH_BYTES_MAX = 55 * MB


async def test_a_delivery_service_that_is_down_costs_the_others_only_log_space(system: System, orders: OrderReceiver) -> None:
    """However many events delivery misses, the others' memory stays flat; all events are delivered when it is back."""
    others = ["subscription", "ingest", "gateway"]
    consumer = await new_consumer(system, "missed")
    status, made = await system.call("POST", "/v1/subscriptions", consumer.key, {"sink": orders.url("missed"), "types": ["bounds.*"]})
    assert status == 201, made
    log = system.data_dir / "ingest.db"
    system.kill("delivery")
    try:
        await publish_numbered(system, _WARM, size_bytes=_SIZE_BYTES, run="missed-warm-")
        space, events = size_on_disk(log), number(log, "SELECT count(*) FROM events")
        before = {name: resident_bytes(system, name) for name in others}
        async with sampled(system, others) as samples:
            await publish_numbered(system, _EVENTS, size_bytes=_SIZE_BYTES, run="missed-")
        for name in others:
            assert samples.most(name) - before[name] < _GROWTH_BYTES_MAX, name
        assert number(log, "SELECT count(*) FROM events") == events + _EVENTS
        assert size_on_disk(log) > space + _EVENTS * _SIZE_BYTES
    finally:
        await system.restart("delivery")
    await orders.counted("missed", _WARM + _EVENTS, 120)
    assert set(await orders.first("missed")) == set(range(_EVENTS))
    await consumer.unsubscribe(str(made["id"]))
