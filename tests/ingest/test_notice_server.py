import pytest
from hooktide.event.v1.event_pb2 import CloudEvent
from hooktide.ingest.v1 import ingest_pb2, notice_pb2

from services.runtime.errors import Reason
from services.runtime.ids import new_id
from services.runtime.rpc.channel_and_server import service_metadata
from tests.ingest.world import TIMEOUT_S, World
from tests.support.events import cloud_event
from tests.support.system.registry import refused

CONSUMER = new_id("con")


def notice(own_id: str, data: str = "{}", type_: str = "hooktide.subscription.failing") -> CloudEvent:
    return cloud_event(own_id, type_, data, source="/hooktide/reg_1", audience=CONSUMER, datacontenttype="application/json")


async def published(world: World, *notices: CloudEvent) -> list[ingest_pb2.PublishResult]:
    answer = await world.call(world.notices.PublishNotices, notice_pb2.PublishNoticesRequest(notices=notices))
    return list(answer.results)


async def test_a_service_publishes_notices_that_stand_in_the_log_as_events_of_their_consumer(world: World) -> None:
    (result,) = await published(world, notice("1"))
    (record,) = await world.records()
    assert (record.event_id, record.type, record.audience) == (result.receipt.event_id, "hooktide.subscription.failing", CONSUMER)
    assert CloudEvent.FromString(record.event) == notice("1")


async def test_a_notice_that_is_published_twice_is_one_event(world: World) -> None:
    """After a crash, delivery publishes a notice again; the log has it once."""
    first = await published(world, notice("1"))
    again = await published(world, notice("1"), notice("2"), notice("1", data='{"other":1}'))
    assert (again[0].receipt.event_id, again[0].receipt.duplicate) == (first[0].receipt.event_id, True)
    assert not again[1].receipt.duplicate
    assert Reason(again[2].error.reason) is Reason.EVENT_ID_CONFLICT
    assert len(await world.records()) == 2


async def test_events_that_are_no_notices_are_refused_one_by_one(world: World) -> None:
    results = await published(world, notice("1", type_="order.created"), notice("2"))
    assert [result.error.field for result in results] == ["type", ""]


@pytest.mark.parametrize("caller", ["emitter", "nobody"])
async def test_only_services_publish_notices(world: World, caller: str) -> None:
    metadata = service_metadata(world.emitter) if caller == "emitter" else ()
    request = notice_pb2.PublishNoticesRequest(notices=[notice("1")])
    failure = await refused(world.notices.PublishNotices(request, metadata=metadata, timeout=TIMEOUT_S))
    assert failure.reason is Reason.SERVICE_TOKEN_REQUIRED
    assert not await world.records()
