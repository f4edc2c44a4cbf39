"""Proxy: every request goes through the operator's proxy, which gets the checked address and never the name."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from services.delivery.transport.protocol import Outcome
from services.delivery.transport.response_parser import HEAD_BYTES_MAX
from services.runtime.configuration.settings import DeliverySettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.service_process import StartError
from tests.delivery.sending import answer_to, post, sending
from tests.support.certificates import Authority
from tests.support.dns import name_server
from tests.support.proxy import Proxy, running_proxy
from tests.support.webhook_receivers.hostile_receivers import OK, Connection, answering, hostile


async def test_a_webhook_goes_through_the_proxy_to_the_address_that_was_judged() -> None:
    async with name_server() as zone, running_proxy() as proxy, hostile(answering(OK), host="127.0.0.2") as server:
        zone.put("hook.example", "127.0.0.2")
        # The egress policy need not allow the proxy's own address.
        async with sending(allow=("http", "127.0.0.2"), lookup=zone.lookup, proxy=proxy.url) as transport:
            answers = [await answer_to(transport, post(f"http://{host}:{server.port}/")) for host in ("hook.example", "127.0.0.2")]

    assert [answer.outcome for answer in answers] == [Outcome.DELIVERED] * 2
    assert proxy.asked == [f"CONNECT 127.0.0.2:{server.port}"] * 2
    assert [request.split(b"\r\n")[:2] for request in server.requests] == [
        [b"POST / HTTP/1.1", f"Host: {host}:{server.port}".encode()] for host in ("hook.example", "127.0.0.2")
    ]


async def test_tls_through_the_proxy_is_verified_for_the_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with running_proxy() as proxy, hostile(answering(OK), tls=authority.server("hook.example")) as server:
        lookup = {"hook.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]}.__getitem__
        async with sending(lookup=lookup, proxy=proxy.url, roots=authority.file) as transport:
            good, bad = [await answer_to(transport, post(f"https://{name}:{server.port}/")) for name in ("hook.example", "other.example")]

    assert good.outcome is Outcome.DELIVERED
    assert bad.outcome is Outcome.TLS


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:P/", "http://[::1]:P/", "http://bad.example:P/", "http://mixed.example:P/", "http://localhost:P/"]
)
async def test_what_may_not_be_called_is_never_asked_of_the_proxy(url: str) -> None:
    async with name_server() as zone, running_proxy() as proxy:
        zone.put("bad.example", "127.0.0.1")
        zone.put("mixed.example", "127.0.0.2", "10.0.0.1")
        zone.put("localhost", "127.0.0.1")
        async with sending(allow=("http", "127.0.0.2"), lookup=zone.lookup, proxy=proxy.url) as transport:
            answer = await answer_to(transport, post(url.replace("P", "8080")))

    assert answer.outcome is Outcome.BLOCKED
    assert proxy.asked == []


@pytest.mark.parametrize("number", [403, 407, 502, 504])
async def test_a_proxy_that_refuses_is_no_answer_of_the_endpoint(number: int) -> None:
    async with running_proxy() as proxy, sending(proxy=proxy.url) as transport:
        proxy.refusing = f"HTTP/1.1 {number} No\r\ncontent-length: 0\r\n\r\n".encode()
        answer = await answer_to(transport, post("http://127.0.0.1:8080/"))

    assert (answer.outcome, answer.status) == (Outcome.CONNECT, 0)
    assert "proxy" in answer.error


async def test_a_proxy_that_is_away_is_a_failure_to_connect() -> None:
    async with running_proxy() as proxy:
        gone = proxy.url
    async with sending(proxy=gone) as transport:
        assert (await answer_to(transport, post("http://127.0.0.1:8080/"))).outcome is Outcome.CONNECT


@pytest.mark.parametrize(
    "value",
    ["proxy:3128", "socks5://proxy:1080", "https://proxy:443", "http://proxy", "http://pro xy:1", "http://proxy:port", "http://a:1/path"],
)
def test_a_setting_that_is_no_proxy_is_said_so(value: str) -> None:
    with pytest.raises(StartError, match="http://host:port"):
        read_settings(DeliverySettings, {"HOOKTIDE_DELIVERY_PROXY": value})


@pytest.mark.parametrize(
    "value",
    [
        "socks5://me:canary@proxy:1080",
        "me:canary@proxy:3128",
        "http://me:can@ary@proxy:1/x",
        "http://me:ca nary@proxy:1",
        "me:can://ary@proxy:1",
    ],
)
def test_what_is_said_of_a_wrong_setting_shows_no_password(value: str) -> None:
    with pytest.raises(StartError, match="http://host:port") as refused:
        read_settings(DeliverySettings, {"HOOKTIDE_DELIVERY_PROXY": value})
    assert "can" not in str(refused.value)
    assert "@proxy" in str(refused.value)


@pytest.mark.parametrize("value", ["", "http://proxy:3128", "http://user:word@proxy.example:443/", "http://[::1]:3128"])
def test_a_setting_that_is_a_proxy_is_taken(value: str) -> None:
    assert read_settings(DeliverySettings, {"HOOKTIDE_DELIVERY_PROXY": value}).delivery_proxy == value


# The exchange with a proxy


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with running_proxy() as running:
        yield running


async def test_a_proxy_is_found_by_its_name_and_shown_who_asks(proxy: Proxy) -> None:
    url = proxy.url.replace("http://127.0.0.1", "http://me:w%40rd@localhost")
    async with hostile(answering(OK)) as server, sending(proxy=url) as transport:
        assert (await answer_to(transport, post(server.url))).outcome is Outcome.DELIVERED
    assert proxy.authorizations == {"Basic bWU6d0ByZA=="}


@pytest.mark.parametrize(
    "raw", [b"", b"junk\r\n\r\n", b"HTTP/1.1 100 Wait\r\n\r\n", b"HTTP/1.1 200 " + b"x" * (HEAD_BYTES_MAX + 1)], ids=len
)
async def test_a_proxy_that_speaks_no_http_is_a_failure_to_connect(raw: bytes) -> None:
    async def behave(connection: Connection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.send(raw)
        connection.writer.close()

    async with hostile(behave) as server, sending(proxy=f"http://127.0.0.1:{server.port}") as transport:
        assert (await answer_to(transport, post("http://127.0.0.1:8080/"))).outcome is Outcome.CONNECT


async def test_a_proxy_that_stands_still_ends_at_the_connect_timeout() -> None:
    async def behave(_connection: Connection) -> None:
        await asyncio.Event().wait()

    async with hostile(behave) as server, sending(proxy=f"http://127.0.0.1:{server.port}", connect_timeout_s=0.3) as transport:
        assert (await answer_to(transport, post("http://127.0.0.1:8080/"))).outcome is Outcome.CONNECT


async def test_connections_through_a_proxy_are_kept(proxy: Proxy) -> None:
    async with hostile(answering(OK)) as server, sending(proxy=proxy.url) as transport:
        for _ in range(3):
            assert (await answer_to(transport, post(server.url))).outcome is Outcome.DELIVERED
    assert (len(proxy.asked), server.connections) == (1, 1)


async def test_a_proxy_whose_name_is_found_late_is_used_once_it_is(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    late = threading.Event()

    def lookup(_name: str) -> Sequence[str]:
        late.wait(10)
        return ["127.0.0.1"]

    monkeypatch.setattr("services.delivery.transport.http.system_lookup", lookup)
    url = proxy.url.replace("127.0.0.1", "proxy.example")
    async with hostile(answering(OK)) as server, sending(proxy=url, connect_timeout_s=0.3) as transport:
        assert (await answer_to(transport, post(server.url))).outcome is Outcome.CONNECT
        late.set()
        async with asyncio.timeout(10):
            while (await answer_to(transport, post(server.url))).outcome is Outcome.CONNECT:
                pass
    assert len(server.requests) == 1
