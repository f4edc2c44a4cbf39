import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.ingest.v1 import event_log_pb2 as pb

from services.runtime.errors import Failure, Reason, failure_from_rpc
from services.runtime.ids import new_id
from tests.ingest.world import TIMEOUT_S, World, positions
from tests.support.events import cloud_event, event_of_size
from tests.support.system.registry import refused

SIZE = 256 * 1024
Place = pb.ShardPosition


def everything() -> list[Place]:
    return [Place()]


async def refused_following(world: World, *places: Place) -> Failure:
    async with world.follow(pb.FollowLogRequest(after=places)) as call:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    return failure_from_rpc(caught.value)


async def test_the_first_response_tells_of_the_log_and_the_others_of_its_records(world: World) -> None:
    await world.publish_batch(cloud_event(partitionkey="a") for _ in range(3))
    async with world.follow(pb.FollowLogRequest(after=everything(), batch_records_max=2)) as call, asyncio.timeout(TIMEOUT_S):
        first, second, third = [await call.read() for _ in range(3)]
        assert isinstance(first, pb.FollowLogResponse)
        assert isinstance(second, pb.FollowLogResponse)
        assert isinstance(third, pb.FollowLogResponse)
        assert len(first.log_id) == 32
        assert list(first.heads) == [Place(position=3)]
        assert not first.records
        assert [record.position for record in [*second.records, *third.records]] == [1, 2, 3]
        assert (list(second.heads), second.log_id) == ([], "")
        await world.publish(cloud_event())
        fourth = await call.read()
        assert isinstance(fourth, pb.FollowLogResponse)
        assert [(record.shard, record.position) for record in fourth.records] == [(0, 4)]


@pytest.mark.parametrize(
    ("places", "field"),
    [
        ([], "after"),
        ([Place(), Place(position=2)], "after"),
        ([Place(), Place(shard=1)], "after"),
        ([Place(shard=1)], "after"),
        ([Place(shard=-1)], "after"),
        ([Place(position=-1)], "after[0].position"),
    ],
)
async def test_places_that_are_none_are_refused(world: World, places: list[Place], field: str) -> None:
    failure = await refused_following(world, *places)
    assert (failure.reason, failure.fields[0].field) == (Reason.INVALID_ARGUMENT, field)
    progress, rewound = [pb.SlotProgress(recorded=[Place()], released=places)], [pb.SlotProgress(recorded=places, released=[Place()])]
    for request, prefix in (
        (pb.ReportProgressRequest(progress=progress), "progress[0].released"),
        (pb.ReportProgressRequest(rewound=rewound), "rewound[0].recorded"),
        (pb.ReportProgressRequest(routing=[pb.SlotRouting(routed=places)]), "routing[0].routed"),
    ):
        failure = await refused(world.call(world.log.ReportProgress, request))
        assert (failure.reason, failure.fields[0].field) == (Reason.INVALID_ARGUMENT, field.replace("after", prefix))
    failure = await refused(world.call(world.log.FindResumePoints, pb.FindResumePointsRequest(after=places)))
    assert (failure.reason, failure.fields[0].field) == (Reason.INVALID_ARGUMENT, field)


@pytest.mark.parametrize("slots", [[256], [-1], [3, 3]])
async def test_slots_that_are_none_or_stand_twice_are_refused(world: World, slots: list[int]) -> None:
    async with world.follow(pb.FollowLogRequest(after=everything(), slots=slots)) as call:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert failure_from_rpc(caught.value).fields[0].field == "slots"
    reports = (
        (world.log.FindResumePoints, pb.FindResumePointsRequest(after=everything(), slots=slots), "slots"),
        (world.log.ReportProgress, pb.ReportProgressRequest(progress=[reached(0, slots)]), "progress[0].slots"),
        (world.log.ReportProgress, pb.ReportProgressRequest(rewound=[reached(0, slots)]), "rewound[0].slots"),
        (world.log.ReportProgress, pb.ReportProgressRequest(routing=[routed(slots)]), "routing[0].slots"),
    )
    for method, request, field in reports:
        failure = await refused(world.call(method, request))
        assert (failure.reason, failure.fields[0].field) == (Reason.INVALID_ARGUMENT, field)


async def test_a_report_names_each_slot_once_and_releases_only_what_is_recorded(world: World) -> None:
    wrong = {
        "progress[1].slots": pb.ReportProgressRequest(progress=[reached(0, [1, 2]), reached(0, [2, 3])]),
        "rewound[1].slots": pb.ReportProgressRequest(rewound=[reached(0, [7]), reached(0, [])]),
        "routing[1].slots": pb.ReportProgressRequest(routing=[routed([]), routed([255])]),
        "progress[0].released": pb.ReportProgressRequest(progress=[pb.SlotProgress(recorded=everything(), released=[Place(position=1)])]),
        "progress": pb.ReportProgressRequest(),
    }
    for field, request in wrong.items():
        failure = await refused(world.call(world.log.ReportProgress, request))
        assert (failure.reason, failure.fields[0].field) == (Reason.INVALID_ARGUMENT, field)
    await world.publish(cloud_event())
    request = pb.ReportProgressRequest(progress=[reached(1, range(100)), reached(0, range(100, 256))], routing=[routed([])])
    answer = await world.call(world.log.ReportProgress, request)
    assert (list(answer.expiring), answer.unrouted_events) == ([Place()], 1)


def reached(position: int, slots: Iterable[int]) -> pb.SlotProgress:
    return pb.SlotProgress(slots=slots, recorded=[Place(position=position)], released=[Place(position=position)])


def routed(slots: Iterable[int]) -> pb.SlotRouting:
    return pb.SlotRouting(slots=slots, routed=everything())


async def test_a_place_that_the_log_does_not_hold_is_named(world: World) -> None:
    receipt = await world.publish(cloud_event())
    for wrong in (Place(position=receipt.position, event_id=new_id("evt")), Place(position=2**60)):
        failure = await refused_following(world, wrong)
        assert (failure.reason, failure.fields[0].field) == (Reason.POSITION_MISMATCH, "after[0]")


async def test_every_method_is_for_services_alone(world: World) -> None:
    """An emitter's key opens no method."""
    methods = vars(world.log)
    assert len(methods) == 8
    for name, method in methods.items():
        for metadata in ((), world.metadata(), world.metadata("hts_another-token-altogether")):
            call = method(b"", metadata=metadata, timeout=TIMEOUT_S)
            failure = await refused(call.read() if name == "FollowLog" else call)
            assert failure.reason is Reason.SERVICE_TOKEN_REQUIRED, name


async def test_a_fetch_ends_early_where_the_records_are_too_large(world: World) -> None:
    """The answer holds at least one record, and says that it ends early."""
    seen = positions(await world.publish_batch(event_of_size(SIZE) for _ in range(14)))
    records = await world.records()
    places = [Place(position=record.position) for record in records]
    answer = await world.call(world.log.FetchEvents, pb.FetchEventsRequest(positions=places))
    assert [record.position for record in answer.records] == seen[:12]
    assert answer.truncated
    answer = await world.call(world.log.FetchEvents, pb.FetchEventsRequest(positions=places[12:]))
    assert [record.position for record in answer.records] == seen[12:]
    assert not answer.truncated


async def test_a_fetch_asks_for_1_to_1000_places(world: World) -> None:
    receipt = await world.publish(cloud_event())
    place = Place(position=receipt.position)
    answer = await world.call(world.log.FetchEvents, pb.FetchEventsRequest(positions=[Place(shard=1)] * 999 + [place]))
    assert [record.event_id for record in answer.records] == [receipt.event_id]
    for count in (0, 1001):
        failure = await refused(world.call(world.log.FetchEvents, pb.FetchEventsRequest(positions=[place] * count)))
        assert (failure.reason, failure.fields[0].field) == (Reason.INVALID_ARGUMENT, "positions")


async def test_an_event_is_shown_to_those_it_is_meant_for(world: World) -> None:
    """It is shown to the consumer that it names, or to all; another consumer cannot tell it from a missing event."""
    mine, other = new_id("con"), new_id("con")
    public = (await world.publish(cloud_event())).event_id
    private = (await world.publish(cloud_event(audience=mine))).event_id

    async def get(consumer: str, event_id: str) -> Any:
        return await world.call(world.log.GetEvent, pb.GetEventRequest(consumer_id=consumer, event_id=event_id))

    for consumer, event_id in ((mine, public), (mine, private), (other, public), ("*", private)):
        assert (await get(consumer, event_id)).record.event_id == event_id
    hidden, missing = await refused(get(other, private)), await refused(get(other, new_id("evt")))
    assert hidden.reason is missing.reason is Reason.EVENT_NOT_FOUND
    assert hidden.message == missing.message
    for partition in (256, 1022, 1023):
        raw = int(public[4:], 16) & ~0x3FF | partition
        assert (await refused(get("*", f"evt_{raw:032x}"))).reason is Reason.EVENT_NOT_FOUND
    for event_id in ("", "evt_", private + "0", private.upper(), "sub" + private[3:]):
        assert (await refused(get("*", event_id))).reason is Reason.EVENT_NOT_FOUND
    for consumer in ("", "all", private):
        assert (await refused(get(consumer, public))).fields[0].field == "consumer_id"


async def listed(world: World, **wanted: Any) -> list[list[str]]:
    """Return the ids of the events of each page."""
    pages, token = [], ""
    while True:
        answer = await world.call(world.log.ListEvents, pb.ListEventsRequest(**({"consumer_id": "*", "page_token": token} | wanted)))
        pages.append([record.event_id for record in answer.records])
        token = answer.next_page_token
        if not token:
            return pages
        wanted["page_token"] = token


async def test_a_list_holds_what_the_caller_may_see_the_newest_first(world: World) -> None:
    mine, other = new_id("con"), new_id("con")
    ids = []
    for number in range(12):
        audience = ("", mine, other)[number % 3]
        event = cloud_event(type_=f"t{number % 2}", **({"audience": audience} if audience else {}))
        event.source = f"/s{number % 4}"
        ids.append((await world.publish(event)).event_id)
    expected = ids[::-1]
    assert await listed(world) == [expected]
    assert await listed(world, consumer_id=mine) == [[each for each in expected if ids.index(each) % 3 in {0, 1}]]
    assert await listed(world, consumer_id=other, type="t0", source="/s0") == [
        [each for each in expected if ids.index(each) % 3 in {0, 2} and ids.index(each) % 4 == 0]
    ]
    assert await listed(world, consumer_id=new_id("con"), type="t1") == [[ids[9], ids[3]]]
    assert await listed(world, type="nothing") == [[]]
    pages = await listed(world, page_size=5)
    assert [len(page) for page in pages] == [5, 5, 2]
    assert [each for page in pages for each in page] == expected


async def test_a_list_is_bounded_by_times_of_acceptance(world: World) -> None:
    """The start time is included, the end time is not."""
    ids = [(await world.publish(cloud_event())).event_id for _ in range(3)]
    times = [record.accepted_unix_ms for record in await world.records()]

    def at(time_ms: int) -> Timestamp:
        stamp = Timestamp()
        stamp.FromMilliseconds(time_ms)
        return stamp

    expected = [event_id for event_id, time in zip(ids, times, strict=True) if times[0] <= time < times[2]][::-1]
    assert await listed(world, start_time=at(times[0]), end_time=at(times[2])) == [expected]
    assert await listed(world, start_time=at(times[2] + 1)) == [[]]
    assert await listed(world, end_time=at(0)) == [[]]
    for field in ("start_time", "end_time"):
        for wrong in (Timestamp(seconds=2**50), Timestamp(nanos=-1)):
            failure = await refused(listed(world, **{field: wrong}))
            assert (failure.reason, failure.fields[0].field) == (Reason.INVALID_ARGUMENT, field)


async def test_a_page_of_large_events_is_shorter_and_the_list_goes_on(world: World) -> None:
    await world.publish_batch(event_of_size(SIZE) for _ in range(15))
    await world.publish_batch(event_of_size(SIZE) for _ in range(15))
    pages = await listed(world)
    assert [len(page) for page in pages] == [12, 12, 6]
    assert len({each for page in pages for each in page}) == 30


@pytest.mark.parametrize("token", ["x", "AAAA", "é"])
async def test_a_page_token_of_another_making_is_refused(world: World, token: str) -> None:
    assert (await refused(listed(world, page_token=token))).reason is Reason.PAGE_TOKEN_INVALID


async def test_progress_is_answered_with_what_is_past_its_retention(world: World) -> None:
    await world.publish_batch(cloud_event() for _ in range(5))
    answer = await world.call(world.log.ReportProgress, pb.ReportProgressRequest(progress=[reached(3, [])]))
    assert list(answer.expiring) == [Place()]
