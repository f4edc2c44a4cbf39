import asyncio
import contextlib
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.rpc.connection_limits import GREETING_BYTES_MAX, Connection, Connections, Standing, surplus

CONNECTIONS = st.builds(
    Connection,
    host=st.just("h"),
    port=st.integers(1, 65535),
    network=st.sampled_from("abc"),
    since_s=st.floats(0, 100),
    exempt=st.just(value=False),
    standing=st.sampled_from(Standing),
)


def connection(network: str, since_s: float, standing: Standing = Standing.UNKNOWN, *, exempt: bool = False) -> Connection:
    return Connection(network, 1, network, since_s, exempt, standing)


def test_beyond_a_networks_share_strangers_go_first_and_the_oldest_of_them() -> None:
    with_key = [connection("a", since_s, Standing.KEY) for since_s in (1, 2)]
    strangers = [connection("a", since_s) for since_s in (3, 4, 5)]
    other = connection("b", 0)
    closed = surplus([*strangers, *with_key, other], connections_max=100, per_network_max=3)
    assert closed == strangers[:2]
    assert surplus([*strangers, *with_key, other], connections_max=100, per_network_max=1) == [*strangers, with_key[1]]


def test_services_and_exempt_addresses_have_no_share() -> None:
    services = [connection("a", 1, Standing.SERVICE) for _ in range(5)]
    proxied = [connection("p", 1, exempt=True) for _ in range(5)]
    assert surplus([*services, *proxied], connections_max=100, per_network_max=1) == []


def test_who_sends_more_than_its_calls_account_for_has_a_moment_for_the_call_to_be_counted() -> None:
    each = connection("a", 0)
    assert not each.is_overdue(GREETING_BYTES_MAX, 10.0)
    assert not each.is_overdue(GREETING_BYTES_MAX + 1, 20.0)
    assert not each.is_overdue(GREETING_BYTES_MAX + 1, 22.9)
    each.bytes_max += 1
    assert not each.is_overdue(GREETING_BYTES_MAX + 1, 23.0)
    assert not each.is_overdue(GREETING_BYTES_MAX + 2, 24.0)
    assert each.is_overdue(GREETING_BYTES_MAX + 2, 27.0)
    assert connection("a", 0).is_overdue(GREETING_BYTES_MAX + 5 * 1024 * 1024, 0.0)


def test_a_crowded_listener_closes_the_oldest_strangers() -> None:
    strangers = [connection(str(number), number) for number in range(10)]
    assert surplus(strangers, connections_max=10, per_network_max=2) == strangers[:2]
    assert surplus(strangers[:9], connections_max=10, per_network_max=2) == []


@given(st.lists(CONNECTIONS, max_size=60, unique_by=id), st.integers(1, 40), st.integers(1, 10))
def test_what_is_left_keeps_to_the_limits(connections: list[Connection], connections_max: int, per_network_max: int) -> None:
    closed = surplus(connections, connections_max=connections_max, per_network_max=per_network_max)
    assert len({id(each) for each in closed}) == len(closed)
    gone = {id(each) for each in closed}
    left = [each for each in connections if id(each) not in gone]
    assert all(each.standing is not Standing.SERVICE for each in closed)
    shares = Counter(each.network for each in left if each.standing is not Standing.SERVICE)
    assert all(count <= per_network_max for count in shares.values())
    if any(each.standing is Standing.UNKNOWN for each in left):
        assert len(left) <= connections_max


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, list[asyncio.StreamReader], list[asyncio.StreamWriter]]]:
    """A TCP server that keeps every connection."""
    received: list[asyncio.StreamReader] = []
    accepted: list[asyncio.StreamWriter] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(reader)
        accepted.append(writer)

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], received, accepted
    finally:
        server.close()
        for writer in accepted:
            writer.close()


async def test_sockets_are_found_by_their_addresses_and_closed() -> None:
    async with listening() as (port, _, accepted), listening() as (other_port, *_):
        connections = Connections(connections_max=100, per_network_max=2, is_exempt=lambda _address: False)
        clients = []
        async with asyncio.timeout(10):
            for number in range(4):
                client = await asyncio.open_connection("127.0.0.1", port)
                clients.append(client)
                while len(accepted) <= number:  # noqa: ASYNC110 - the server tells nobody else
                    await asyncio.sleep(0)
                local = client[1].get_extra_info("sockname")[1]
                # The first client has called with a key.
                found = connections.of(f"ipv4:127.0.0.1:{local}", float(number))
                assert found is not None
                found.standing = Standing.KEY if number == 0 else Standing.UNKNOWN
            elsewhere = await asyncio.open_connection("127.0.0.1", other_port)
            assert connections.look(port, 10.0) == 4
            assert await clients[1][0].read() == b""
            assert await clients[2][0].read() == b""
            for writer in accepted:
                writer.write(b"kept")
            assert await clients[0][0].readexactly(4) == b"kept"
            assert await clients[3][0].readexactly(4) == b"kept"
        for _, writer in (*clients, elsewhere):
            writer.close()


def test_a_connection_is_found_on_a_number_that_was_another_socket_before() -> None:
    connections = Connections(connections_max=100, per_network_max=2, is_exempt=lambda _address: False)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as other:
        port = server.getsockname()[1]
        other.bind(("127.0.0.1", 0))
        assert [connections.look(port, now_s) for now_s in (0.0, 1.0)] == [0, 0]
        with socket.create_connection(server.getsockname()):
            accepted, _ = server.accept()
            with accepted:
                os.dup2(accepted.fileno(), other.fileno())
            assert connections.look(port, 2.0) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="no other system can")
async def test_nothing_is_taken_from_a_paused_connection_until_it_is_resumed() -> None:
    async with listening() as (port, received, accepted):
        connections = Connections(connections_max=100, per_network_max=100, is_exempt=lambda _address: False)
        async with asyncio.timeout(20):
            clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            while len(accepted) < 2:  # noqa: ASYNC110 - the server tells nobody else
                await asyncio.sleep(0)
            assert connections.look(port, 0.0) == 2
            paused, other = (connections.of(f"ipv4:127.0.0.1:{writer.get_extra_info('sockname')[1]}", 0.0) for _, writer in clients)
            assert paused is not None
            assert other is not None
            assert connections.pause(paused)
            for _, writer in clients:
                writer.write(b"sent")
            readers = {writer.get_extra_info("peername")[1]: reader for reader, writer in zip(received, accepted, strict=True)}
            assert await readers[other.port].readexactly(4) == b"sent"
            taken = asyncio.ensure_future(readers[paused.port].readexactly(4))
            assert not (await asyncio.wait([taken], timeout=0.3))[0]
            connections.resume(paused)
            assert await taken == b"sent"
        for _, writer in clients:
            writer.close()


@pytest.mark.parametrize("peer", ["unix:", "unix:/run/x.sock", "", "ipv4:127.0.0.1", "ipv4:127.0.0.1:x"])
def test_what_is_no_tcp_peer_is_no_connection(peer: str) -> None:
    assert Connections(connections_max=1, per_network_max=1, is_exempt=lambda _address: False).of(peer, 0.0) is None


@pytest.mark.parametrize(
    ("peer", "host", "network"),
    [
        ("ipv4:192.0.2.1:443", "192.0.2.1", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:443", "2001:db8::1", "2001:db8::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:443", "192.0.2.1", "192.0.2.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:443", "fe80::1", "fe80::/64"),
    ],
)
def test_a_peer_is_known_by_its_network(peer: str, host: str, network: str) -> None:
    found = Connections(connections_max=1, per_network_max=1, is_exempt=lambda _address: False).of(peer, 0.0)
    assert found is not None
    assert (found.host, found.port, found.network) == (host, 443, network)
