from urllib.parse import quote

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.delivery.v1 import delivery_pb2 as pb
from hooktide.event.v1.event_pb2 import CloudEvent

from services.runtime.errors import Failure, Reason
from services.runtime.ids import new_id
from tests.gateway.world import World
from tests.support.events import cloud_event

DAY_MS = 86_400_000
T0_MS = 1_900_000_000_000


def event(type_: str, source: str = "/history", data: str = '{"total": 1.10}') -> CloudEvent:
    return cloud_event(new_id("req"), type_, data, source=source)


def at(ms: int) -> Timestamp:
    time = Timestamp()
    time.FromMilliseconds(ms)
    return time


def delivery(world: World, **members: object) -> pb.Delivery:
    """Put a delivery of the consumer into the ledger."""
    defaults: dict[str, object] = {
        "id": new_id("dlv"),
        "event_id": new_id("evt"),
        "subscription_id": new_id("sub"),
        "consumer_id": world.keys.consumer_id,
        "event_type": "order.created",
        "state": pb.DELIVERY_STATE_PENDING,
        "event_time": at(T0_MS),
        "partition": 7,
        "position": 42,
    }
    made = pb.Delivery(**(defaults | members))  # type: ignore[arg-type]  # passed on as the test wrote them
    world.ledger.deliveries.append(made)
    return made


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


async def test_a_delivery_shows_its_attempts_and_a_list_leaves_them_out(world: World) -> None:
    failed = pb.Attempt(
        number=1,
        start_time=at(T0_MS),
        duration=Duration(nanos=250_000_000),
        outcome=pb.ATTEMPT_OUTCOME_STATUS,
        status=503,
        error="the endpoint answered 503",
        response_body="<b>busy</b>",
    )
    lost = pb.Attempt(number=2, start_time=at(T0_MS), duration=Duration(seconds=15), outcome=pb.ATTEMPT_OUTCOME_TIMEOUT, error="no answer")
    made = delivery(world, attempt_count=2, last_status=503, next_attempt_time=at(T0_MS + 30_000), attempts=[failed, lost])
    listed = {
        "id": made.id,
        "event_id": made.event_id,
        "subscription_id": made.subscription_id,
        "consumer_id": world.keys.consumer_id,
        "event_type": "order.created",
        "state": "pending",
        "attempt_count": 2,
        "last_status": 503,
        "partition": 7,
        "position": 42,
        "accepted_at": "2030-03-17T17:46:40Z",
        "next_attempt_at": "2030-03-17T17:47:10Z",
        "finished_at": None,
    }
    page = (await world.call("GET", f"/v1/deliveries?event={made.event_id}")).json
    assert page == {"items": [listed], "next_cursor": None}
    answer = (await world.call("GET", f"/v1/deliveries/{made.id}")).json
    assert answer.pop("attempts") == [
        {
            "number": 1,
            "started_at": "2030-03-17T17:46:40Z",
            "duration_seconds": 0.25,
            "outcome": "status",
            "status": 503,
            "error": "the endpoint answered 503",
            "response_body": "<b>busy</b>",
        },
        {
            "number": 2,
            "started_at": "2030-03-17T17:46:40Z",
            "duration_seconds": 15.0,
            "outcome": "timeout",
            "status": None,
            "error": "no answer",
            "response_body": None,
        },
    ]
    assert answer == listed


async def test_deliveries_are_filtered_by_state_subscription_and_type(world: World) -> None:
    subscription_id = new_id("sub")
    done = delivery(world, subscription_id=subscription_id, state=pb.DELIVERY_STATE_DELIVERED, finish_time=at(T0_MS + 1), last_status=204)
    dead = delivery(
        world, subscription_id=subscription_id, state=pb.DELIVERY_STATE_EXHAUSTED, event_type="h.dead", event_time=at(T0_MS + DAY_MS)
    )

    async def listed(query: str) -> list[str]:
        page = (await world.call("GET", f"/v1/deliveries?subscription={subscription_id}{query}")).json
        return [item["id"] for item in page["items"]]

    assert await listed("") == [dead.id, done.id]
    assert await listed("&state=delivered") == [done.id]
    assert await listed("&state=exhausted&type=h.dead") == [dead.id]
    assert await listed("&state=cancelled") == []
    assert await listed("&after=2030-03-18T00:00:00Z") == [dead.id]
    assert await listed("&before=2030-03-18T00:00:00Z") == [done.id]


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/events?after=yesterday", "after"),
        ("/v1/events?state=pending", "state"),
        ("/v1/events?subject=x", "subject"),
        ("/v1/deliveries?state=lost", "state"),
        ("/v1/deliveries?state=PENDING", "state"),
        ("/v1/deliveries?state=", "state"),
        ("/v1/deliveries?before=", "before"),
        ("/v1/deliveries?source=/x", "source"),
        ("/v1/deliveries?limit=201", "limit"),
        ("/v1/deliveries/dlv_1?attempts=1", "attempts"),
        ("/v1/deliveries?cursor=xyz", "cursor"),
    ],
)
async def test_a_wrong_or_unknown_parameter_is_named(world: World, path: str, parameter: str) -> None:
    answer = await world.call("GET", path)
    assert answer.status == 400
    assert [error["parameter"] for error in answer.json["errors"]] == [parameter]


@pytest.mark.parametrize(
    ("failure", "status", "reason", "retry_after"),
    [
        (Failure(Reason.DEADLINE_EXCEEDED, "Too late."), 504, "DEADLINE_EXCEEDED", None),
        (Failure(Reason.OVERLOADED, "Busy.", retry_after_s=2.5), 429, "OVERLOADED", "3"),
        (Failure(Reason.STORAGE_FULL, "Full.", retry_after_s=5), 503, "STORAGE_FULL", "5"),
        (Failure(Reason.POSITION_MISMATCH, "For services only."), 500, "INTERNAL", None),
        (Failure(Reason.ROUTE_NOT_FOUND, "For services only."), 500, "INTERNAL", None),
        (Failure(Reason.SERVICE_TOKEN_REQUIRED, "For services only."), 500, "INTERNAL", None),
        (RuntimeError("the password is hunter2"), 500, "INTERNAL", None),
    ],
)
async def test_what_a_service_refuses_with_reaches_the_client_in_form(
    world: World, failure: Exception, status: int, reason: str, retry_after: str | None
) -> None:
    world.log.failure = failure
    try:
        answer = await world.call("GET", "/v1/events")
    finally:
        world.log.failure = None
    assert (answer.status, answer.json["reason"], answer.headers.get("retry-after")) == (status, reason, retry_after)
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"hunter2" not in answer.raw
    assert b"For services only" not in answer.raw


async def test_what_came_of_a_test_event_is_the_answer(world: World) -> None:
    made = await world.subscription()
    world.ledger.attempt = pb.Attempt(number=1, outcome=pb.ATTEMPT_OUTCOME_STATUS, status=500, error="it answered 500")
    answer = await world.call("POST", f"/v1/subscriptions/{made['id']}/test")
    assert (answer.status, answer.json["event_id"], answer.json["attempt"]["outcome"]) == (200, "evt_" + "7" * 32, "status")
    assert (answer.json["attempt"]["status"], answer.json["attempt"]["error"]) == (500, "it answered 500")
    surplus = await world.call("POST", f"/v1/subscriptions/{made['id']}/test", {"type": "order.created"})
    assert (surplus.status, surplus.json["errors"][0]["pointer"]) == (400, "/type")
