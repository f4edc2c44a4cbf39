from urllib.parse import quote

import pytest
from hooktide.event.v1.event_pb2 import CloudEvent

from services.runtime.ids import new_id
from tests.gateway.world import World
from tests.support.events import cloud_event

DAY_MS = 86_400_000
T0_MS = 1_900_000_000_000


def event(type_: str, source: str = "/history", data: str = '{"total": 1.10}') -> CloudEvent:
    return cloud_event(new_id("req"), type_, data, source=source)


async def test_an_event_is_shown_with_its_place_and_its_data_digit_by_digit(world: World) -> None:
    own = event("h.shown")
    event_id = world.log.append(own, accepted_unix_ms=T0_MS + 5)
    answer = await world.call("GET", f"/v1/events/{event_id}")
    record = world.log.records[-1]
    assert answer.json == {
        "id": event_id,
        "partition": record.partition,
        "position": record.position,
        "accepted_at": "2030-03-17T17:46:40.005Z",
        "event": {"specversion": "1.0", "id": own.id, "source": "/history", "type": "h.shown", "data": {"total": 1.1}},
    }
    assert b'{"total": 1.10}' in answer.raw


async def test_events_are_filtered_by_type_source_and_time(world: World) -> None:
    ids = [
        world.log.append(event(type_, source), accepted_unix_ms=T0_MS + day * DAY_MS)
        for day, (type_, source) in enumerate([("h.a", "/1"), ("h.b", "/1"), ("h.a", "/2"), ("h.a", "/1")])
    ]

    async def listed(query: str) -> list[str]:
        page = (await world.call("GET", f"/v1/events?{query}")).json
        return [item["id"] for item in page["items"] if item["id"] in ids]

    odd = world.log.append(event("h:a+b/ü c"))
    ids.append(odd)
    assert await listed(f"type={quote('h:a+b/ü c', safe='')}") == [odd]
    assert await listed("type=h.a") == [ids[3], ids[2], ids[0]]
    assert await listed("type=h.a&source=/1") == [ids[3], ids[0]]
    assert await listed("type=h.a&after=2030-03-19T17:46:40Z") == [ids[3], ids[2]]
    assert await listed("type=h.a&before=2030-03-19T18:46:40%2B01:00") == [ids[0]]


async def test_pages_of_events_go_on_by_cursor(world: World) -> None:
    ids = [world.log.append(event("h.page")) for _ in range(3)]
    first = (await world.call("GET", "/v1/events?type=h.page&limit=2")).json
    rest = (await world.call("GET", f"/v1/events?type=h.page&limit=2&cursor={first['next_cursor']}")).json
    assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1]
    assert rest["next_cursor"] is None


async def test_a_consumer_sees_events_for_all_and_for_itself(world: World) -> None:
    for_all = world.log.append(event("h.aud"))
    mine = world.log.append(event("h.aud"), audience=world.keys.consumer_id)
    theirs = world.log.append(event("h.aud"), audience=world.keys.other_id)

    async def seen(key: str) -> set[str]:
        return {item["id"] for item in (await world.call("GET", "/v1/events?type=h.aud", key=key)).json["items"]}

    assert await seen(world.keys.consumer) == {for_all, mine}
    assert await seen(world.keys.other) == {for_all, theirs}
    assert await seen(world.keys.admin) == {for_all, mine, theirs}


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/events?after=yesterday", "after"),
        ("/v1/events?state=pending", "state"),
        ("/v1/events?subject=x", "subject"),
    ],
)
async def test_a_wrong_or_unknown_parameter_is_named(world: World, path: str, parameter: str) -> None:
    answer = await world.call("GET", path)
    assert answer.status == 400
    assert [error["parameter"] for error in answer.json["errors"]] == [parameter]
