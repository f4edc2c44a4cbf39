"""Recorded hostile endpoints: what the ledger says of each real misbehaving server, with a running registry, ingest and delivery."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from hooktide.delivery.v1 import delivery_pb2, delivery_pb2_grpc
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.delivery import app
from services.delivery.transport.exchange import Limits
from services.delivery.transport.http import open_http_transport
from services.delivery.transport.protocol import RESPONSE_BYTES_KEPT, Transport
from services.egress.policy import EgressPolicy
from services.runtime.configuration.reload import Reloadable
from services.runtime.configuration.settings import DeliverySettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.rpc.channel_and_server import open_channel
from services.runtime.service_process import ServiceProcess
from tests.delivery.system import Delivering, State, System
from tests.support.certificates import Authority
from tests.support.dns import Zone, name_server
from tests.support.events import cloud_event
from tests.support.waiting import until_so
from tests.support.webhook_receivers.hostile_receivers import (
    OK,
    Behaviour,
    answering,
    answering_once,
    black_hole,
    bomb,
    closing,
    dripping,
    endless,
    hostile,
    resetting,
    silent,
    status,
)

TAKEN, STATUS = delivery_pb2.ATTEMPT_OUTCOME_DELIVERED, delivery_pb2.ATTEMPT_OUTCOME_STATUS
DNS, CONNECT, TLS = delivery_pb2.ATTEMPT_OUTCOME_DNS, delivery_pb2.ATTEMPT_OUTCOME_CONNECT, delivery_pb2.ATTEMPT_OUTCOME_TLS
TIMEOUT, RESET = delivery_pb2.ATTEMPT_OUTCOME_TIMEOUT, delivery_pb2.ATTEMPT_OUTCOME_RESET
BLOCKED, PROTOCOL = delivery_pb2.ATTEMPT_OUTCOME_BLOCKED, delivery_pb2.ATTEMPT_OUTCOME_PROTOCOL
DELIVERED, EXHAUSTED = State.DELIVERY_STATE_DELIVERED, State.DELIVERY_STATE_EXHAUSTED
CANARY = "http://127.0.0.1:1/"


@dataclass(frozen=True)
class Row:
    """How an endpoint behaves, and what the ledger records of one attempt."""

    behaviour: Behaviour
    outcome: int
    number: int = 0
    """The answer's HTTP status."""
    body: str = ""
    """The beginning of the answer's body, as far as the ledger keeps it."""


FAULTS = {
    "31 one byte at a time": Row(dripping(0.02, b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"), TIMEOUT),
    "31 no answer": Row(silent, TIMEOUT),
    "32 endless failure": Row(endless(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 0x4000), STATUS, 500, "x" * RESPONSE_BYTES_KEPT),
    "32 endless success": Row(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 0x4000), TAKEN, 200),
    "33 compression bomb": Row(answering(bomb("content-encoding")), STATUS, 500, "\x1f\ufffd"),
    "34 header of a megabyte": Row(answering_once(b"HTTP/1.1 200 OK\r\nx: " + b"y" * (1 << 20) + b"\r\n\r\n"), PROTOCOL),
    "34 headers without end": Row(endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000), PROTOCOL),
    "35 no HTTP": Row(answering_once(b"220 mail.example ESMTP\r\n\r\n"), PROTOCOL),
    "35 another protocol": Row(
        answering_once(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"), PROTOCOL
    ),
    "35 an interim answer alone": Row(answering_once(b"HTTP/1.1 103 Early Hints\r\n\r\n"), RESET),
    "36 reset after the request": Row(resetting, RESET),
    "36 closed after the request": Row(closing, RESET),
    "37 redirect": Row(answering(status(307, f"location: {CANARY}")), STATUS, 307),
    "45 loop": Row(answering(status(508)), STATUS, 508),
}
TIMES = {
    "HOOKTIDE_DELIVERY_ATTEMPT_TIMEOUT_SECONDS": "1.5",
    "HOOKTIDE_DELIVERY_CONNECT_TIMEOUT_SECONDS": "0.5",
    "HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS": "0.05",
}


@contextlib.asynccontextmanager
async def delivering(system: System, zone: Zone, roots: Path | str = "", **values: str) -> AsyncIterator[Delivering]:
    """Run a delivery service that resolves names by the test's own name server."""
    settings = read_settings(DeliverySettings, system.environ | TIMES | values)

    def open_transport(policy: EgressPolicy, _reloadable: Reloadable[DeliverySettings]) -> AbstractAsyncContextManager[Transport]:
        total, connect = settings.delivery_attempt_timeout_seconds, settings.delivery_connect_timeout_seconds
        return open_http_transport(policy, Limits(total, connect, total, 64, 32, 0.0), lookup=zone.lookup, roots=str(roots))

    process = ServiceProcess("delivery")
    async with app.running(settings, process, open_transport) as addresses, open_channel(addresses.listen) as channel:
        yield Delivering(delivery_pb2_grpc.DeliveryServiceStub(channel), process, addresses.listen, addresses.admin)


@pytest.fixture
async def zone() -> AsyncIterator[Zone]:
    """A name server of the test's own."""
    async with name_server() as running:
        yield running


async def recorded(system: System, delivering: Delivering, sink: str) -> list[delivery_pb2.Attempt]:
    """Publish one event to a sink, and return what the ledger holds of it at the end."""
    made = (await system.subscribe(sink, "row")).subscription
    await system.publish(cloud_event(made.id, "row"))
    found: list[delivery_pb2.Delivery] = []

    async def has_ended() -> bool:
        found[:] = [each for each in await delivering.deliveries(subscription_id=made.id) if each.state in {DELIVERED, EXHAUSTED}]
        return bool(found)

    await until_so(has_ended)
    await system.registry.delete(system.consumer_id, made.id)
    return list((await delivering.delivery(found[0].id)).attempts)


async def test_names_of_one_consumer_that_hang_are_nobody_elses_failure(system: System, zone: Zone) -> None:
    attacker, names = await system.registry.consumer("attacker"), [f"n{number}.example" for number in range(64)]
    zone.silent |= set(names)
    zone.put("good.example", "127.0.0.1")

    async def are_looked_up() -> bool:
        return len(zone.asked) >= 4

    async with delivering(system, zone) as running, hostile(answering(OK)) as server:
        for name in names:
            await system.subscribe(f"http://{name}/", "attack", consumer_id=attacker)
        await system.publish(cloud_event("1", "attack"))
        await until_so(are_looked_up)
        attempts = await recorded(system, running, f"http://good.example:{server.port}/")
    assert [each.outcome for each in attempts] == [TAKEN]


async def test_each_fault_is_recorded_as_its_own_class(system: System, zone: Zone) -> None:
    """Each fault except a loop is tried again as often as there are delays."""
    async with delivering(system, zone) as running:
        for name, row in FAULTS.items():
            async with hostile(row.behaviour) as server:
                attempts = await recorded(system, running, server.url)
            assert {(each.outcome, each.status) for each in attempts} == {(row.outcome, row.number)}, name
            assert len(attempts) == (1 if row.outcome == TAKEN or row.number == 508 else 2), name
            for attempt in attempts:
                assert attempt.response_body.startswith(row.body), name
                assert len(attempt.response_body) <= RESPONSE_BYTES_KEPT, name
                assert bool(attempt.error) == (row.outcome != TAKEN), name
                assert "127.0.0.1" not in attempt.error, name


async def test_what_is_never_reached_is_recorded_as_its_own_class(system: System, zone: Zone) -> None:
    """The cases: a black hole, a refused connection, an unknown name, and a name that leads or comes to lead to a forbidden address."""
    zone.put("inside.example", "10.0.0.1")
    zone.broken.add("broken.example")
    async with delivering(system, zone) as running, black_hole() as hole, hostile(answering(status(500))) as server:
        zone.flip("flips.example", ["127.0.0.1"], ["169.254.169.254"])
        cases = {
            hole: [CONNECT] * 2,
            "http://127.0.0.1:2/": [CONNECT] * 2,
            "http://missing.example/": [DNS] * 2,
            "http://broken.example/": [DNS] * 2,
            "http://inside.example/": [BLOCKED] * 2,
            f"http://flips.example:{server.port}/": [STATUS, BLOCKED],
        }
        for sink, outcomes in cases.items():
            attempts = await recorded(system, running, sink)
            assert [each.outcome for each in attempts] == outcomes, sink
            assert not any(text in each.error for each in attempts for text in ("10.0.0.1", "169.254.169.254/", "127.0.0.1")), sink


@pytest.mark.parametrize("case", ["expired", "self-signed", "another name"])
async def test_a_certificate_that_does_not_fit_is_recorded_with_its_reason(system: System, zone: Zone, tmp_path: Path, case: str) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    zone.put("hook.example", "127.0.0.1")
    tls = {
        "expired": lambda: authority.server("hook.example", expired=True),
        "self-signed": lambda: stranger.server("hook.example"),
        "another name": lambda: authority.server("other.example"),
    }[case]()
    async with delivering(system, zone, authority.file) as running, hostile(answering(OK), tls=tls) as server:
        attempts = await recorded(system, running, f"https://hook.example:{server.port}/")
    assert {each.outcome for each in attempts} == {TLS}
    assert all(each.error.startswith("TLS failed: ") for each in attempts)


@pytest.mark.parametrize(
    ("value", "at_least_s", "at_most_s"), [("120", 119, 121), ("99999999", 21599, 21601), ("-5", 0, 2), ("1e99", 0, 3), ("soon", 0, 2)]
)
async def test_a_pause_that_is_asked_for_is_kept_within_six_hours(
    system: System, zone: Zone, value: str, at_least_s: float, at_most_s: float
) -> None:
    busy = answering(status(429, f"retry-after: {value}"))
    async with delivering(system, zone, HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="1") as running, hostile(busy) as server:
        await system.registry.call(
            system.registry.subscriptions.CreateSubscription,
            pb.CreateSubscriptionRequest(
                consumer_id=system.consumer_id,
                subscription=pb.Subscription(
                    sink=server.url, config=pb.SubscriptionConfig(retry=pb.RetryPolicy(delays=pb.RetryDelays(delays=[Duration(seconds=1)])))
                ),
            ),
        )
        await system.publish(cloud_event("7"))
        found: list[delivery_pb2.Delivery] = []

        async def has_failed() -> bool:
            found[:] = [each for each in await running.deliveries() if each.attempt_count]
            return bool(found)

        await until_so(has_failed)
        detail = await running.delivery(found[0].id)
    began = detail.attempts[0].start_time.ToMilliseconds()
    assert at_least_s <= (detail.next_attempt_time.ToMilliseconds() - began) / 1000 <= at_most_s
