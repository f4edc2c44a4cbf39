"""Sink: it must count right, since all figures of deliveries come from it."""

import os
import sys
from collections.abc import Iterator

import pytest

from services.runtime.configuration.settings import DeliverySettings
from tests.bench.bare_client import Job, Speed, under_way
from tests.bench.openers import PRODUCT, YARDSTICK
from tests.bench.sink import Sink, sink
from tests.bench.world import on_service_core

pytestmark = pytest.mark.skipif(sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="Linux and two cores are needed")

_HEADERS = {"content-type": "application/json", "user-agent": "Hooktide/0.1", "webhook-id": "evt_1", "hooktide-attempt": "1"}
_BODY = '{"name": "Zoë"}'


@pytest.fixture(scope="module", name="seen")
def _seen() -> Iterator[Sink]:
    with sink(3) as running:
        yield running


@pytest.mark.parametrize("transport", [PRODUCT, YARDSTICK])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_what_a_bare_client_sends_arrives(seen: Sink, scheme: str, transport: str) -> None:
    """Each request is counted once, at each address, over verified TLS too; the latest request is shown as it came."""
    await seen.forget()
    job = Job(transport, [f"{url}/hook" for url in seen.urls(scheme, 3)], _HEADERS, _BODY, measured=200, warm=50)
    environ = {**os.environ, "SSL_CERT_FILE": seen.roots, "HOOKTIDE_SINK_ALLOW": "http,127.0.0.0/8"}
    speed = Speed(*await on_service_core("tests.bench.bare_client", job._asdict(), environ))
    assert speed.per_s > 0
    assert await seen.counted(250) > 0
    assert list(await seen.arrivals()) == ["evt_1"]
    assert await seen.sample() == ({name: value.lower() for name, value in _HEADERS.items()}, _BODY.encode())


def test_a_bare_client_has_as_much_under_way_as_the_service() -> None:
    settings = DeliverySettings(delivery_in_flight_max=256, delivery_lane_in_flight_max=64, delivery_host_connections_max=128)
    assert [under_way(settings, sinks) for sinks in (1, 3, 1000)] == [64, 192, 256]


async def test_a_sink_can_be_dead_and_slow(seen: Sink) -> None:
    """A dead sink counts nothing, and what it refused stands not in the order; a slow one answers late, and tells how many waited."""
    sinks = [f"{url}/hook" for url in seen.urls("http", 1)]
    environ = {**os.environ, "HOOKTIDE_SINK_ALLOW": "http,127.0.0.0/8"}

    async def sent(event_id: str) -> float:
        job = Job(PRODUCT, sinks, {**_HEADERS, "webhook-id": event_id}, _BODY, measured=64, warm=1)
        return Speed(*await on_service_core("tests.bench.bare_client", job._asdict(), environ)).per_s

    await seen.forget()
    await seen.behave("die")
    with pytest.raises(AssertionError, match="bare_client has failed"):
        await sent("evt_1")
    assert await seen.count() == 0
    await seen.behave("delay 0.5")
    assert await sent("evt_2") <= 64 / 0.5
    await seen.behave("answer")
    await sent("evt_1")
    assert (await seen.order(), set(await seen.arrivals())) == (["evt_2"], {"evt_1", "evt_2"})
    assert 1 < await seen.waiting_most() <= 64
