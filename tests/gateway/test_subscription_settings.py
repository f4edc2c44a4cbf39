"""Request settings and limits of subscriptions through REST."""

from typing import Any

import pytest

from tests.gateway.world import SINK, World

GONE_AND_SUCCESS = [f"/config/retry/final_statuses/{index}" for index in (1, 2)]
MERGE_PATCH = {"content-type": "application/merge-patch+json"}


async def test_settings_and_limits_are_merged_member_by_member(world: World) -> None:
    wanted: dict[str, Any] = {
        "protocolsettings": {
            "headers": {"X-Team": "billing", "x-area": "eu"},
            "timeout_seconds": 2.5,
            "content_mode": "data_only",
            "signatures": ["v1a", "v1"],
            "http_message_signature": True,
        },
        "config": {
            "rate_per_second": 0.5,
            "in_flight_max": 7,
            "retry": {"delays_seconds": [5, 0.25], "attempts_max": 3, "final_statuses": [400, 404]},
        }
        | {"ordering": "key", "start": "2023-11-14T22:13:20Z"},
    }
    made = await world.subscription(key=None, **wanted)
    path = f"/v1/subscriptions/{made['id']}"
    assert made["protocolsettings"] == {
        **wanted["protocolsettings"],
        "headers": {"x-area": "eu", "x-team": "billing"},
        "signatures": ["v1", "v1a"],
        "ca_certificates": None,
    }
    assert made["config"] == {"description": None, **wanted["config"]}
    patch = {
        "protocolsettings": {"headers": {"X-AREA": None, "x-new": "1"}, "timeout_seconds": None},
        "config": {"retry": None, "description": "d"},
    }
    after = (await world.call("PATCH", path, patch, headers=MERGE_PATCH)).json
    assert after["protocolsettings"]["headers"] == {"x-new": "1", "x-team": "billing"}
    assert (after["protocolsettings"]["timeout_seconds"], after["protocolsettings"]["content_mode"]) == (None, "data_only")
    assert after["config"] == {"description": "d", "rate_per_second": 0.5, "in_flight_max": 7, "retry": None} | {
        "ordering": "key",
        "start": "2023-11-14T22:13:20Z",
    }
    again = await world.call("PUT", path, after)
    assert {**again.json, "updated_at": ""} == {**after, "updated_at": ""}


async def test_a_start_cannot_be_changed(world: World) -> None:
    """A patch that repeats it, or names none, is fine; a PUT may leave it out."""
    made = await world.subscription(key=None, config={"start": "beginning"})
    path = f"/v1/subscriptions/{made['id']}"
    for method, start, status in (("PATCH", "beginning", 200), ("PATCH", None, 200), ("PATCH", "now", 400), ("PUT", "now", 400)):
        members = {"config": {"start": start}}
        answer = await world.call(method, path, members if method == "PATCH" else {"sink": SINK, **members})
        assert answer.status == status
        if status == 400:
            assert answer.json["errors"][0]["pointer"] == "/config/start"
    replaced = await world.call("PUT", path, {"sink": SINK})
    assert (replaced.status, replaced.json["config"]["start"]) == (200, "beginning")


@pytest.mark.parametrize(
    ("members", "pointers"),
    [
        ({"protocolsettings": {"headers": {"x-ok": "1", "Content-Length": "1"}}}, ["/protocolsettings/headers/Content-Length"]),
        ({"protocolsettings": {"headers": {"x/y": "1"}}}, ["/protocolsettings/headers/x~1y"]),
        ({"protocolsettings": {"timeout_seconds": 31}}, ["/protocolsettings/timeout_seconds"]),
        ({"protocolsettings": {"ca_certificates": "none"}}, ["/protocolsettings/ca_certificates"]),
        ({"config": {"rate_per_second": 0, "in_flight_max": 0}}, ["/config/rate_per_second", "/config/in_flight_max"]),
        ({"config": {"retry": {"delays_seconds": [5, 0]}}}, ["/config/retry/delays_seconds/1"]),
        ({"config": {"retry": {"attempts_max": 0, "final_statuses": [404, 410, 200]}}}, ["/config/retry/attempts_max", *GONE_AND_SUCCESS]),
        ({"config": {"start": "9999-12-31T23:59:59Z"}}, ["/config/start"]),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_wrong_member_is_a_problem_at_its_pointer(
    world: World, method: str, members: dict[str, object], pointers: list[str]
) -> None:
    path = "/v1/subscriptions" if method == "POST" else f"/v1/subscriptions/{(await world.subscription())['id']}"
    answer = await world.call(method, path, members if method == "PATCH" else {"sink": SINK, **members})
    assert answer.status == 400
    assert [error["pointer"] for error in answer.json["errors"]] == pointers
