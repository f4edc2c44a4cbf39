import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.delivery.v1 import delivery_pb2 as pb

from services.runtime.ids import new_id
from tests.gateway.world import World

DAY_MS = 86_400_000
T0_MS = 1_900_000_000_000


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


async def test_a_delivery_shows_its_attempts_and_a_list_leaves_them_out(world: World) -> None:
    failed = pb.Attempt(
        number=1,
        start_time=at(T0_MS),
        duration=Duration(nanos=250_000_000),
        outcome=pb.ATTEMPT_OUTCOME_STATUS,
        status=503,
        error="the server answered 503",
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
        "waiting": False,
        "expires_at": None,
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
            "error": "the server answered 503",
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


async def test_a_delivery_that_waits_in_the_log_says_until_when(world: World) -> None:
    made = delivery(world, waiting=True, expire_time=at(T0_MS + DAY_MS))
    answer = (await world.call("GET", f"/v1/deliveries/{made.id}")).json
    assert (answer["state"], answer["waiting"], answer["expires_at"], answer["attempts"]) == ("pending", True, "2030-03-18T17:46:40Z", [])


async def test_a_list_counts_what_it_cannot_show(world: World) -> None:
    path = f"/v1/deliveries?subscription={new_id('sub')}"
    assert (await world.call("GET", path)).json == {"items": [], "next_cursor": None}
    world.ledger.besides = pb.ListDeliveriesResponse(
        not_listed=pb.NotListed(subscriptions=3, about=70),
        ended=pb.EndedInLog(cancelled=5),
        partial=True,
        missing_workers=["worker 1"],
    )
    page = (await world.call("GET", path)).json
    world.ledger.besides.Clear()
    assert page == {
        "items": [],
        "next_cursor": None,
        "not_listed": {"subscriptions": 3, "about": 70},
        "ended": {"cancelled": 5, "exhausted": 0},
        "partial": True,
        "missing_workers": ["worker 1"],
    }


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
