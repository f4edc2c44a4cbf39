"""The operator's proxy: everything goes through it, and it is told the address that was judged, never the name."""

from pathlib import Path

import pytest

from services.delivery.model import Outcome
from services.runtime.lifecycle import StartError
from services.runtime.settings import DeliverySettings, read_settings
from tests.delivery.certificates import Authority
from tests.delivery.dns import name_server
from tests.delivery.hostile import OK, answering, hostile
from tests.delivery.proxy import running_proxy
from tests.delivery.sending import answer_to, post, sending


async def test_a_webhook_goes_through_the_proxy_to_the_address_that_was_judged() -> None:
    async with name_server() as zone, running_proxy() as proxy, hostile(answering(OK), host="127.0.0.2") as server:
        zone.put("hook.example", "127.0.0.2")
        # The proxy's own address need not be one that sinks may have.
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
