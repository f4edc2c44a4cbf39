import pytest
from hooktide.ingest.v1 import event_log_pb2 as pb

from services.runtime.errors import Reason
from tests.ingest.world import World
from tests.support.events import cloud_event
from tests.support.system.registry import refused

BEGINNING = [pb.ShardPosition()]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ReadLogRequest(), "after"),
        (pb.ReadLogRequest(after=BEGINNING * 2), "after"),
        (pb.ReadLogRequest(after=[pb.ShardPosition(shard=1)]), "after"),
        (pb.ReadLogRequest(after=[pb.ShardPosition(position=-1)]), "after[0].position"),
        (pb.ReadLogRequest(after=BEGINNING, through=[pb.ShardPosition(shard=-1)]), "through"),
        (pb.ReadLogRequest(after=BEGINNING, through=BEGINNING * 2), "through"),
        (pb.ReadLogRequest(after=BEGINNING, parts=2), "parts"),
        (pb.ReadLogRequest(after=BEGINNING, parts=-1), "parts"),
        (pb.ReadLogRequest(after=BEGINNING, parts=1, part=1), "part"),
        (pb.ReadLogRequest(after=BEGINNING, types=["a", "a*"]), "types[1]"),
        (pb.ReadLogRequest(after=BEGINNING, types=["a"] * 101), "types"),
        (pb.ReadLogRequest(after=BEGINNING, audiences=["con_1"] * 101), "audiences"),
    ],
)
async def test_a_read_that_the_contract_does_not_know_is_refused(world: World, request_: pb.ReadLogRequest, field: str) -> None:
    failure = await refused(world.call(world.log.ReadLog, request_))
    assert (failure.reason, failure.fields[0].field) == (Reason.INVALID_ARGUMENT, field)


async def test_a_bound_beyond_the_greatest_is_taken_as_the_greatest(world: World) -> None:
    """So is a bound that is not set."""
    await world.publish_batch(cloud_event() for _ in range(201))
    for asked in (0, -1, 201, 2**31 - 1):
        request = pb.ReadLogRequest(after=BEGINNING, parts=1, records_max=asked, bytes_max=asked and 2**31 - 1, examined_max=asked)
        answer = await world.call(world.log.ReadLog, request)
        assert len(answer.records) == 200
        assert [place.position for place in answer.scanned_through] == [answer.records[-1].position]
