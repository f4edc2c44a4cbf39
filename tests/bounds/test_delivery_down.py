import itertools

from tests.support.consumers import new_consumer
from tests.support.memory import MB, resident_bytes
from tests.support.numbered_events import publish_numbered
from tests.support.service_databases import number, size_on_disk
from tests.support.system.processes import System
from tests.support.webhook_receivers.order_receiver import OrderReceiver

_WARM = 9_000  # as many as the log keeps in memory for its followers
_PARTS, _PART = 4, 3_000
_SIZE_BYTES = 3_000
# Events that stayed in memory would take 9 MB in each part. What an allocator or a buffer keeps comes in some parts only.
_GROWTH_BYTES_MAX = 4 * MB


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
        sizes = {name: [resident_bytes(system, name)] for name in others}
        for part in range(_PARTS):
            await publish_numbered(system, _PART, size_bytes=_SIZE_BYTES, run=f"missed-{part}-")
            for name in others:
                sizes[name].append(resident_bytes(system, name))
        for name, found in sizes.items():
            assert min(later - earlier for earlier, later in itertools.pairwise(found)) < _GROWTH_BYTES_MAX, (name, found)
        assert number(log, "SELECT count(*) FROM events") == events + _PARTS * _PART
        assert size_on_disk(log) > space + _PARTS * _PART * _SIZE_BYTES
    finally:
        await system.restart("delivery")
    await orders.counted("missed", _WARM + _PARTS * _PART, 120)
    assert set(await orders.first("missed")) == set(range(_WARM))
    await consumer.unsubscribe(str(made["id"]))
