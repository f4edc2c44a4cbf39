"""Hostile connections beside an honest client: they may not use up what the honest client needs."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from services.runtime.api_key import new_key
from tests.gateway.raw_http import Dialled, Wire, head
from tests.gateway.world import SINK, World, running_world
from tests.support.events import cloud_event
from tests.support.waiting import until

HOSTILE = "127.0.0.2"
THROTTLED = {"HOOKTIDE_AUTHENTICATION_FAILURES_BURST": "4", "HOOKTIDE_AUTHENTICATION_FAILURES_PER_SECOND": "0.2"}
JSON = "content-type: application/json"


@contextlib.asynccontextmanager
async def dialled(world: World, count: int, host: str = HOSTILE) -> AsyncIterator[list[Wire]]:
    """Open several connections to the gateway from one address."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Dialled(world.gateway.listen, local=host)) for _ in range(count)]


async def whoami(wire: Wire, key: str, *lines: str) -> int:
    """Ask for the owner of a key, and return the status of the answer."""
    await wire.send(head("GET", "/v1/whoami", f"authorization: Bearer {key}", *lines))
    return (await wire.answer()).status


async def test_silent_connections_give_way_to_an_honest_client(tmp_path: Path) -> None:
    """The oldest silent connections are closed, as many as necessary."""
    async with running_world(tmp_path, gateway={"HOOKTIDE_GATEWAY_CONNECTIONS_MAX": "16"}) as world, dialled(world, 16) as hostile:
        assert (await world.call("GET", "/v1/whoami")).status == 200
        assert await hostile[0].ended()
        async with dialled(world, 1, "127.0.0.1") as (honest,):
            assert await whoami(honest, world.keys.consumer) == 200
            async with dialled(world, 20):
                # A connection that has shown a valid key gives way only after every connection that has not.
                assert await whoami(honest, world.keys.consumer) == 200


async def test_one_address_holds_no_more_connections_than_its_limit(tmp_path: Path) -> None:
    async with (
        running_world(tmp_path, gateway={"HOOKTIDE_GATEWAY_ADDRESS_CONNECTIONS_MAX": "4"}) as world,
        dialled(world, 4) as first,
        dialled(world, 2, "127.0.0.3") as others,
        dialled(world, 4) as second,
    ):
        for wire in first:
            assert await wire.ended()
        for wire in (*second, *others):
            assert await whoami(wire, world.keys.consumer) == 200


async def test_what_is_being_answered_does_not_give_way(tmp_path: Path) -> None:
    """A new connection is refused instead."""
    async with running_world(tmp_path, gateway={"HOOKTIDE_GATEWAY_ADDRESS_CONNECTIONS_MAX": "1"}) as world:
        world.log.gate.clear()
        async with dialled(world, 1) as (busy,):
            await busy.send(head("GET", "/v1/events", f"authorization: Bearer {world.keys.consumer}"))
            await until(lambda: world.log.under_way > 0)
            async with dialled(world, 1) as (refused,):
                assert await refused.ended()
            world.log.gate.set()
            assert (await busy.answer()).status == 200


async def test_headers_have_seconds_also_on_a_connection_that_was_used(tmp_path: Path) -> None:
    """The time limit for headers stays the same if a byte comes now and then."""
    async with running_world(tmp_path, gateway={"HOOKTIDE_GATEWAY_HEADERS_SECONDS": "0.3"}) as world, dialled(world, 2) as (fresh, used):
        assert await whoami(used, world.keys.consumer) == 200
        for wire in (fresh, used):
            await wire.send(b"GET /v1/whoami HTTP/1.1\r\n")

        async def drip(wire: Wire) -> None:
            with contextlib.suppress(ConnectionError):
                while not wire.writer.is_closing():
                    await wire.send(b"x: y\r\n")
                    await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            for wire in (fresh, used):
                group.create_task(drip(wire))
                assert await wire.ended()
                wire.writer.close()


async def test_a_connection_waits_longer_for_its_next_request_than_for_headers(tmp_path: Path) -> None:
    """The longer wait also applies after a request whose body came apart from its headers."""
    async with running_world(tmp_path, gateway={"HOOKTIDE_GATEWAY_HEADERS_SECONDS": "0.2"}) as world, dialled(world, 1) as (wire,):
        whose = f"authorization: Bearer {world.keys.consumer}"
        await wire.send(head("POST", "/v1/subscriptions", whose, JSON, f"content-length: {len(SINK) + 11}"))
        await asyncio.sleep(0.05)
        await wire.send(b'{"sink":"%b"}' % SINK.encode())
        assert (await wire.answer()).status == 201
        await asyncio.sleep(0.4)
        assert await whoami(wire, world.keys.consumer) == 200


async def test_a_flood_of_requests_on_new_connections_of_one_address_is_cut_off(tmp_path: Path) -> None:
    """Silent connections do not count, so they do not hinder an honest client, whatever its address."""
    slow = {"HOOKTIDE_GATEWAY_ADDRESS_CONNECTIONS_PER_SECOND": "10"}
    async with running_world(tmp_path, gateway=slow) as world, dialled(world, 30), dialled(world, 60) as hostile:
        assert await whoami(hostile[0], world.keys.consumer) == 200
        for wire in hostile[1:]:
            await wire.send(head("GET", "/v1/whoami", "connection: close"))
        assert any([await wire.ended() for wire in hostile[1:]])
        assert (await world.call("GET", "/v1/whoami")).status == 200
        assert await whoami(hostile[0], world.keys.consumer) == 200


async def test_heads_are_limited_in_all_before_and_after_they_are_complete(world: World) -> None:
    """Each header is as long as allowed; a hundred of them exceed what the gateway holds for a stranger."""
    lines = [f"x-{number}: {'a' * 8000}" for number in range(6)]
    async with dialled(world, 2) as (whole, part):
        await whole.send(head("GET", "/v1/whoami", f"authorization: Bearer {world.keys.consumer}", *lines[:5]))
        answer = await whole.answer()
        assert (answer.status, answer.json["reason"]) == (413, "REQUEST_TOO_LARGE")
        await part.send(b"GET /v1/whoami HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            for line in lines:
                await part.send(f"{line}\r\n".encode())
        assert await part.ended()


async def test_wrong_keys_are_answered_at_a_rate_and_a_right_key_at_once(tmp_path: Path) -> None:
    """The right key comes from the same address, on a new connection, and is new to the gateway."""
    async with running_world(tmp_path, gateway=THROTTLED) as world, dialled(world, 30) as hostile:
        made = await world.call("POST", "/v1/keys", {"role": "emitter"}, key=world.keys.admin)
        guesses = [asyncio.ensure_future(whoami(wire, new_key())) for wire in hostile]
        await until(lambda: sum(guess.done() for guess in guesses) >= 4)
        async with dialled(world, 2) as (right, no_key):
            assert await whoami(right, made.json["key"]) == 200
            assert await whoami(right, made.json["key"]) == 200
            waiting = asyncio.ensure_future(whoami(no_key, ""))
            assert sum(not guess.done() for guess in guesses) >= 20
            assert (await world.call("GET", "/v1/whoami", key=new_key())).status == 401
            assert not waiting.done()
        for each in (*guesses, waiting):
            each.cancel()
        await asyncio.gather(*guesses, waiting, return_exceptions=True)


async def test_behind_a_trusted_proxy_only_the_hostile_client_is_throttled(tmp_path: Path) -> None:
    """The gateway does not trust what the client itself writes into the header."""
    async with (
        running_world(tmp_path, gateway={"HOOKTIDE_TRUSTED_PROXIES": "127.0.0.9", **THROTTLED}) as world,
        dialled(world, 11, "127.0.0.9") as (*hostile, honest),
    ):
        spoofed = (f"x-forwarded-for: 192.0.2.{number}, 198.51.100.7" for number in range(10))
        guesses = [asyncio.ensure_future(whoami(wire, new_key(), line)) for wire, line in zip(hostile, spoofed, strict=True)]
        await until(lambda: sum(guess.done() for guess in guesses) >= 4)
        assert await whoami(honest, new_key(), "x-forwarded-for: 203.0.113.5") == 401
        assert await whoami(honest, world.keys.consumer, "x-forwarded-for: 198.51.100.7") == 200
        assert sum(not guess.done() for guess in guesses) >= 5
        for each in guesses:
            each.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)


async def test_a_spoofed_header_from_an_untrusted_peer_changes_nothing(tmp_path: Path) -> None:
    """A client can neither hide its address nor use up another client's allowance."""
    async with running_world(tmp_path, gateway=THROTTLED) as world, dialled(world, 10) as hostile:
        lines = ("x-forwarded-for: 127.0.0.1", "forwarded: for=127.0.0.1")
        guesses = [asyncio.ensure_future(whoami(wire, new_key(), lines[number % 2])) for number, wire in enumerate(hostile)]
        await until(lambda: sum(guess.done() for guess in guesses) >= 4)
        assert (await world.call("GET", "/v1/whoami", key=new_key())).status == 401
        assert sum(not guess.done() for guess in guesses) >= 5
        for each in guesses:
            each.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)


async def test_a_trusted_proxy_has_no_limit_for_one_address_and_its_clients_have(tmp_path: Path) -> None:
    async with (
        running_world(
            tmp_path, gateway={"HOOKTIDE_GATEWAY_ADDRESS_CONNECTIONS_MAX": "2", "HOOKTIDE_TRUSTED_PROXIES": "127.0.0.9"}
        ) as world,
        dialled(world, 6, "127.0.0.9") as (*hostile, honest),
    ):
        world.log.gate.clear()
        whose = f"authorization: Bearer {world.keys.consumer}"
        for wire in hostile:
            await wire.send(head("GET", "/v1/events", whose, "x-forwarded-for: 198.51.100.7"))
        answers = [asyncio.ensure_future(wire.answer()) for wire in hostile]
        await until(lambda: sum(answer.done() for answer in answers) == 3)
        assert await whoami(honest, world.keys.other, "x-forwarded-for: 203.0.113.5") == 200
        world.log.gate.set()
        assert sorted([(await answer).status for answer in answers]) == [200, 200, 429, 429, 429]


async def test_one_consumer_s_slow_requests_take_no_other_consumer_s_turn(tmp_path: Path) -> None:
    """Requests beyond the share wait, up to a limit; other consumers get answers."""
    async with running_world(tmp_path, gateway={"HOOKTIDE_GATEWAY_CONSUMER_REQUESTS_MAX": "2"}) as world:
        world.log.gate.clear()
        async with dialled(world, 20) as slow:
            for wire in slow:
                await wire.send(head("GET", "/v1/events", f"authorization: Bearer {world.keys.consumer}"))
            answers = [asyncio.ensure_future(wire.answer()) for wire in slow]
            await until(lambda: sum(answer.done() for answer in answers) == 2 and world.log.under_way == 2)
            refused = next(answer.result() for answer in answers if answer.done())
            assert (refused.status, refused.json["reason"]) == (429, "OVERLOADED")
            assert "retry-after" in refused.headers
            assert (await world.call("GET", "/v1/whoami", key=world.keys.other)).status == 200
            world.log.gate.set()
            assert sorted([(await answer).status for answer in answers]) == [200] * 18 + [429] * 2


async def test_an_answer_that_nobody_reads_takes_of_the_consumer_s_own_share(tmp_path: Path) -> None:
    """The answer stays in memory as long as it is not read."""
    async with running_world(tmp_path, gateway={"HOOKTIDE_GATEWAY_CONSUMER_REQUESTS_MAX": "1"}) as world:
        for _ in range(12):
            world.log.append(cloud_event("1", "big", json.dumps("x" * 500_000)))
        async with Dialled(world.gateway.listen, receive_bytes=4096) as deaf:
            await deaf.send(head("GET", "/v1/events?type=big", f"authorization: Bearer {world.keys.consumer}"))
            await deaf.reader.readexactly(1)
            waiting = asyncio.ensure_future(world.call("GET", "/v1/whoami"))
            assert (await world.call("GET", "/v1/whoami", key=world.keys.other)).status == 200
            assert not waiting.done()
            assert len(await deaf.reader.readuntil(b"\r\n\r\n")) < 1000
            while not waiting.done():
                await deaf.reader.read(1 << 20)
            assert (await waiting).status == 200
