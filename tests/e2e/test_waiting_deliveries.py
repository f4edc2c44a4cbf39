"""Waiting deliveries, over REST: what a consumer sees of events that wait in the log for a dead sink and for a paused subscription."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import hooktide
import pytest

from tests.support.system.in_process import System, running_system
from tests.support.waiting import until_so

EVENTS, ROWS = 30, 2


class Api:
    """The REST API with one key."""

    def __init__(self, http: aiohttp.ClientSession, system: System, key: str) -> None:
        self._http, self._url, self._key = http, f"http://{system.addresses['gateway'].listen}", key

    async def call(self, method: str, path: str, body: object = None, *, status: int = 200) -> dict[str, Any]:
        """Call, check the status, and return the body."""
        headers = {"authorization": f"Bearer {self._key}"}
        async with self._http.request(method, self._url + path, json=body, headers=headers) as answer:
            text = await answer.text()
            assert answer.status == status, text
            return dict(await answer.json()) if text else {}

    async def subscribe(self, sink: str) -> str:
        """Create a subscription and return its id."""
        return str((await self.call("POST", "/v1/subscriptions", {"sink": sink}, status=201))["id"])

    async def walk(self, query: str) -> list[dict[str, Any]]:
        """Return the deliveries of all pages of seven."""
        found, cursor = list[dict[str, Any]](), ""
        while True:
            page = await self.call("GET", f"/v1/deliveries?{query}&limit=7{cursor}")
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"


@pytest.fixture
def dead_sink() -> Iterator[str]:
    """The URL of a sink that refuses every connection."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/hook"


async def test_a_consumer_sees_what_waits_in_the_log_and_what_became_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead_sink: str
) -> None:
    settings = {
        "SERVICE_TOKEN": "hts_a-token-for-this-test-only",
        "DELIVERY_LANE_PENDING_MAX": str(ROWS),
        "DELIVERY_RETRY_DELAYS_SECONDS": "600",
        "DELIVERY_BREAKER_SECONDS": "600",
    }
    async with running_system(monkeypatch, tmp_path, **settings) as system, aiohttp.ClientSession() as http:
        owner, admin = Api(http, system, system.keys.consumer), Api(http, system, system.keys.admin)
        paused = await owner.subscribe(system.sink)
        await owner.call("POST", f"/v1/subscriptions/{paused}/pause")
        other_id = (await admin.call("POST", "/v1/consumers", {"name": "Bank"}, status=201))["id"]
        made = await admin.call("POST", "/v1/keys", {"role": "consumer", "consumer_id": other_id}, status=201)
        other = Api(http, system, made["key"])
        dead = await owner.subscribe(dead_sink)
        async with hooktide.Emitter(system.addresses["ingest"].listen, key=system.keys.emitter) as emitter:
            events = [(await emitter.emit(type="order.created", source="/shop")).event_id for _ in range(EVENTS)]

        async def both_wait() -> bool:
            items = (await owner.call("GET", f"/v1/deliveries?event={events[-1]}"))["items"]
            return [each["waiting"] for each in items] == [True, True]

        await until_so(both_wait)
        waits = (await owner.call("GET", f"/v1/deliveries?event={events[-1]}&state=pending"))["items"]
        assert {each["subscription_id"] for each in waits} == {dead, paused}
        assert {(each["attempt_count"], each["next_attempt_at"]) for each in waits} == {(0, None)}
        assert all(each["expires_at"] > each["accepted_at"] for each in waits)
        one = await owner.call("GET", f"/v1/deliveries/{waits[0]['id']}")
        assert one == {**waits[0], "attempts": []}

        for subscription in (dead, paused):
            listed = await owner.walk(f"subscription={subscription}")
            assert len(listed) == EVENTS
            assert {each["event_id"] for each in listed} == set(events)
        everything = await owner.call("GET", "/v1/deliveries?state=pending&limit=200")
        assert everything["not_listed"]["subscriptions"] == 2
        assert everything["not_listed"]["about"] >= EVENTS - ROWS, "an estimate, which may count notices in the log"
        assert {each["waiting"] for each in everything["items"]} == {False}

        for query in ("", f"event={events[-1]}", f"subscription={paused}", "state=pending"):
            assert await other.call("GET", f"/v1/deliveries?{query}") == {"items": [], "next_cursor": None}
        await other.call("GET", f"/v1/deliveries/{waits[0]['id']}", status=404)

        await owner.call("DELETE", f"/v1/subscriptions/{paused}", status=204)

        async def told() -> bool:
            page = await owner.call("GET", f"/v1/deliveries?subscription={paused}&state=cancelled")
            return bool(page.get("ended", {}).get("cancelled", 0) + len(page["items"]) >= EVENTS)

        await until_so(told)
        assert "ended" not in await other.call("GET", "/v1/deliveries?state=cancelled")
        left = (await owner.call("GET", f"/v1/deliveries?event={events[-1]}"))["items"]
        assert [(each["subscription_id"], each["waiting"]) for each in left] == [(dead, True)]
        assert system.webhooks.empty()
