"""Server-side request forgery: whatever a sink's URL or name says, no forbidden address is ever connected to.

A canary listens on every address of this machine, and must see no connection. Only 127.0.0.2 may be called.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from services.delivery.transport.exchange import DialPolicy, Exchange, Target
from services.delivery.transport.http import HttpTransport
from services.delivery.transport.pool import Pool
from services.delivery.transport.protocol import Answer, Outcome, Request
from services.egress.policy import EgressPolicy
from tests.delivery.sending import LIMITS, answer_to, post, sending
from tests.egress.test_policy import SPECIAL_ADDRESSES
from tests.egress.test_urls import REFUSED
from tests.support.dns import Zone, name_server
from tests.support.webhook_receivers.hostile_receivers import OK, Connection, HostileServer, answering, hostile, status

PERMITTED = "127.0.0.2"

# Ways to write this machine's address, or a host that some parsers take for it; P is the canary's port.
URLS = [
    "http://127.0.0.1:P/",
    "http://127.0.0.3:P/",
    "http://127.255.255.254:P/",
    "http://0.0.0.0:P/",
    "http://0:P/",
    "http://[::]:P/",
    "http://[::1]:P/",
    "http://[0:0:0:0:0:0:0:1]:P/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:P/",
    "http://[::ffff:127.0.0.1]:P/",
    "http://[::FFFF:7f00:1]:P/",
    "http://[::ffff:0:127.0.0.1]:P/",
    "http://[::127.0.0.1]:P/",
    "http://[64:ff9b::127.0.0.1]:P/",
    "http://[64:ff9b::7f00:1]:P/",
    "http://[64:ff9b:1::127.0.0.1]:P/",
    "http://[2002:7f00:1::]:P/",
    "http://[2001:0:7f00:1::]:P/",
    "http://[fe80::1%25lo]:P/",
    "http://[fe80::1%lo]:P/",
    "http://[::1%25lo]:P/",
    "http://2130706433:P/",
    "http://2130706434:P/",
    "http://4294967295:P/",
    "http://017700000001:P/",
    "http://0x7f000001:P/",
    "http://0x7F.0x0.0x0.0x1:P/",
    "http://0x7f.1:P/",
    "http://0177.0.0.1:P/",
    "http://0177.0.0.01:P/",
    "http://00000177.0.0.1:P/",
    "http://127.0.0.01:P/",
    "http://127.0.1:P/",
    "http://127.1:P/",
    "http://127.0.0.1.:P/",
    "http://127.0.0.0x1:P/",
    "http://383.0.0.1:P/",
    "http://localhost:P/",
    "http://LOCALHOST:P/",
    "http://localhost.:P/",
    "http://a.localhost:P/",
    "http://localhost.localdomain:P/",
    "http://ip6-localhost:P/",
    "http://１２７.0.0.1:P/",  # noqa: RUF001 - full-width digits are the point
    "http://①②⑦.⓪.⓪.①:P/",
    "http://127。0。0。1:P/",
    "http://127．0．0．1:P/",  # noqa: RUF001 - full-width dots are the point
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:P/",
    "http://loca𝐥host:P/",  # noqa: RUF001 - a mathematical letter is the point
    "http://user@127.0.0.1:P/",
    "http://user:word@127.0.0.1:P/",
    "http://127.0.0.2@127.0.0.1:P/",
    "http://127.0.0.2:80@127.0.0.1:P/",
    "http://127.0.0.2%2f@127.0.0.1:P/",
    "http://127.0.0.1:P\\@127.0.0.2/",
    "http://127.0.0.2\\@127.0.0.1:P/",
    "http://127.0.0.1:P#@127.0.0.2/",
    "http://127.0.0.2#@127.0.0.1:P/",
    "http://127.0.0.1:P?@127.0.0.2/",
    "http://127.0.0.1%00.example:P/",
    "http://127.0.0.1%0a:P/",
    "http://%31%32%37.0.0.1:P/",
    "http://127.0.0.%31:P/",
    "http://127.0.0.1 .example:P/",
    "http://127.0.0.1\t:P/",
    "http://127.0.0.1\r\n:P/",
    " http://127.0.0.1:P/",
    "http:// 127.0.0.1:P/",
    "http:/127.0.0.1:P/",
    "http:127.0.0.1:P/",
    "http:\\\\127.0.0.1:P/",
    "//127.0.0.1:P/",
    "127.0.0.1:P",
    "ftp://127.0.0.1:P/",
    "gopher://127.0.0.1:P/_GET",
    "dict://127.0.0.1:P/d",
    "telnet://127.0.0.1:P/",
    "smtp://127.0.0.1:P/",
    "ws://127.0.0.1:P/",
    "file://127.0.0.1/etc/hostname",
    "unix://127.0.0.1:P/",
    "http+unix://127.0.0.1:P/",
]


class Canary:
    """Listens on all addresses of this machine, of IPv4 and of IPv6."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.port: int = listening.getsockname()[1]

    def assert_unseen(self) -> None:
        """Fail if there was any connection."""
        with contextlib.suppress(BlockingIOError):
            connection, peer = self._listening.accept()
            connection.close()
            pytest.fail(f"the canary was connected to, from {peer}")


@pytest.fixture
def canary() -> Iterator[Canary]:
    with socket.socket(socket.AF_INET6) as listening:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(("::", 0))
        listening.listen(128)
        listening.setblocking(False)  # noqa: FBT003 - the standard library's signature
        found = Canary(listening)
        yield found
        found.assert_unseen()


@pytest_asyncio.fixture
async def zone() -> AsyncIterator[Zone]:
    async with name_server() as running:
        yield running


@pytest_asyncio.fixture
async def transport(zone: Zone) -> AsyncIterator[HttpTransport]:
    """A transport that may call only `PERMITTED`, and resolves names by the test's own name server."""
    async with sending(allow=("http", PERMITTED), lookup=zone.lookup, names_kept_s=0.0) as opened:
        yield opened


async def test_the_canary_sees_who_comes(canary: Canary) -> None:
    """Without this test, the following tests would prove nothing."""
    async with sending(allow=("http", "127.0.0.0/8")) as transport:
        sending_it = asyncio.ensure_future(answer_to(transport, post(f"http://127.0.0.1:{canary.port}/")))
        with pytest.raises(pytest.fail.Exception):  # noqa: PT012 - the canary is looked at until the request has ended
            while not sending_it.done():
                await asyncio.sleep(0)
                canary.assert_unseen()
        sending_it.cancel()


@pytest.mark.parametrize("url", URLS)
async def test_a_url_that_leads_to_this_machine_is_blocked(url: str, canary: Canary, zone: Zone, transport: HttpTransport) -> None:
    # Names in this list lead to this machine too, as those of a real machine may.
    for name in ("localhost", "localhost.localdomain", "ip6-localhost", "a.localhost"):
        zone.put(name, "127.0.0.1", "::1")

    assert (await answer_to(transport, post(url.replace("P", str(canary.port))))).outcome is Outcome.BLOCKED


@pytest.mark.parametrize("url", [url for url, _ in REFUSED])
@pytest.mark.usefixtures("canary")
async def test_a_url_of_an_odd_form_is_blocked(url: str, transport: HttpTransport) -> None:
    assert (await answer_to(transport, post(url))).outcome is Outcome.BLOCKED


@pytest.mark.parametrize("address", [address for address, _ in SPECIAL_ADDRESSES])
async def test_a_special_address_is_blocked(address: str, canary: Canary, transport: HttpTransport) -> None:
    url = f"http://[{address}]:{canary.port}/" if ":" in address else f"http://{address}:{canary.port}/"

    assert (await answer_to(transport, post(url))).outcome is Outcome.BLOCKED


@pytest.mark.parametrize("address", [address for address, _ in SPECIAL_ADDRESSES if "%" not in address])
async def test_a_name_of_a_special_address_is_blocked(address: str, canary: Canary, zone: Zone, transport: HttpTransport) -> None:
    """The special address comes alone, or before or behind an allowed one."""
    for number, addresses in enumerate(([address], [PERMITTED, address], [address, PERMITTED])):
        name = zone.put(f"n{number}.example", *addresses)
        answer = await answer_to(transport, post(f"http://{name}:{canary.port}/"))

        assert answer.outcome is Outcome.BLOCKED
        # The consumer reads the error, and must not learn what the operator's resolver says beyond the range.
        assert address not in answer.error.replace(f"{address}/", "")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0", "localhost", "[::1]", "[::ffff:127.0.0.1]", "user@127.0.0.1", PERMITTED]
)
@pytest.mark.parametrize("number", [301, 302, 307, 308])
async def test_a_redirect_to_this_machine_is_not_followed(number: int, host: str, canary: Canary, transport: HttpTransport) -> None:
    location = f"http://{host}:{canary.port}/"
    async with hostile(answering(status(number, f"location: {location}", f"refresh: 0; url={location}")), host=PERMITTED) as server:
        answer = await answer_to(transport, post(server.url))

    assert (answer.outcome, answer.status) == (Outcome.STATUS, number)


async def test_no_vector_is_reached_by_a_redirect(canary: Canary, zone: Zone, transport: HttpTransport) -> None:
    """An endpoint redirects to each URL and each special address of this file, by each kind of redirect."""
    for name in ("localhost", "localhost.localdomain", "ip6-localhost", "a.localhost"):
        zone.put(name, "127.0.0.1", "::1")
    hosts = [f"[{address}]" if ":" in address else address for address, _ in SPECIAL_ADDRESSES]
    targets = [url.replace("P", str(canary.port)) for url in URLS] + [f"http://{host}:{canary.port}/" for host in hosts]
    assert len(targets) >= 120
    asked: list[str] = []

    async def redirect(connection: Connection) -> None:
        while (request := await connection.request()) is not None:
            target = targets[int(request.split(b" ")[1].rpartition(b"/")[2])]
            asked.append(target)
            # The vector without its line breaks, which would end the header.
            for_header = target.encode().replace(b"\r", b"").replace(b"\n", b"")
            await connection.send(
                b"HTTP/1.1 307 Go\r\nlocation: %b\r\nrefresh: 0; url=%b\r\ncontent-length: 0\r\n\r\n" % (for_header, for_header)
            )

    async with hostile(redirect, host=PERMITTED) as server:
        for number in range(len(targets)):
            answer = await answer_to(transport, post(f"{server.url}/{number}"))
            assert (answer.outcome, answer.status) == (Outcome.STATUS, 307)
    assert asked == targets


# Names


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[HostileServer]:
    """The single endpoint that may be called; it closes every connection, so that each request must dial."""
    async with hostile(answering(OK.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)), host=PERMITTED) as running:
        yield running


async def test_a_name_of_a_permitted_address_is_called(endpoint: HostileServer, zone: Zone, transport: HttpTransport) -> None:
    name = zone.put("good.example", PERMITTED)

    assert (await answer_to(transport, post(f"http://{name}:{endpoint.port}/"))).outcome is Outcome.DELIVERED
    assert f"host: {name}:{endpoint.port}".encode() in endpoint.requests[0].lower()


async def test_a_name_that_flips_between_check_and_dial_is_dialled_as_it_was_checked(
    endpoint: HostileServer, zone: Zone, transport: HttpTransport
) -> None:
    """The name is looked up once, and the judged address is the one that is dialled; the next lookup is judged again."""
    name = zone.flip("flip.example", [PERMITTED], ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", endpoint.port)) as other:
        other.setblocking(False)  # noqa: FBT003 - the standard library's signature
        url = f"http://{name}:{endpoint.port}/"
        answers = [await answer_to(transport, post(url)) for _ in range(3)]

        assert [answer.outcome for answer in answers] == [Outcome.DELIVERED, Outcome.BLOCKED, Outcome.BLOCKED]
        assert zone.asked[name] == 3
        with pytest.raises(BlockingIOError):
            other.accept()


async def test_a_name_that_flips_is_blocked_though_a_connection_to_its_old_address_is_open(zone: Zone, transport: HttpTransport) -> None:
    name = zone.flip("flip.example", [PERMITTED], ["10.0.0.1"])
    async with hostile(answering(OK), host=PERMITTED) as server:
        answers = [await answer_to(transport, post(f"http://{name}:{server.port}/")) for _ in range(2)]

    assert [answer.outcome for answer in answers] == [Outcome.DELIVERED, Outcome.BLOCKED]
    assert len(server.requests) == 1


async def test_a_name_that_moves_is_called_where_it_is(zone: Zone) -> None:
    """A connection to the old address serves neither the new address nor another name."""
    async with (
        hostile(answering(OK), host="127.0.0.3") as old,
        sending(allow=("http", "127.0.0.0/8"), lookup=zone.lookup, names_kept_s=0.0) as transport,
    ):
        moved = asyncio.Event()

        async def behave(_connection: object) -> None:
            moved.set()

        def arrived(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            moved.set()
            writer.close()

        new = await asyncio.start_server(arrived, "127.0.0.4", old.port)
        async with new:
            name = zone.flip("moving.example", ["127.0.0.3"], ["127.0.0.4"])
            url = f"http://{name}:{old.port}/"
            first, second = [await answer_to(transport, post(url)) for _ in range(2)]

    assert first.outcome is Outcome.DELIVERED
    assert second.outcome is Outcome.RESET
    assert moved.is_set()
    assert len(old.requests) == 1


async def test_the_lifetime_that_a_record_claims_is_not_believed(endpoint: HostileServer, zone: Zone) -> None:
    zone.lifetime_s = 0x7FFFFFFF
    name = zone.flip("long.example", [PERMITTED], ["127.0.0.1"])
    async with sending(allow=("http", PERMITTED), lookup=zone.lookup, names_kept_s=0.2) as transport:
        url = f"http://{name}:{endpoint.port}/"
        first = await answer_to(transport, post(url))
        again = await answer_to(transport, post(url))
        async with asyncio.timeout(60):
            while (await answer_to(transport, post(url))).outcome is not Outcome.BLOCKED:
                pass

    assert first.outcome is again.outcome is Outcome.DELIVERED


async def test_an_alias_is_judged_by_where_it_leads(canary: Canary, endpoint: HostileServer, zone: Zone, transport: HttpTransport) -> None:
    zone.put("here.example", "127.0.0.1")
    zone.put("there.example", PERMITTED)
    zone.aliases |= {"a.example": "b.example", "b.example": "here.example", "c.example": "d.example", "d.example": "there.example"}

    assert (await answer_to(transport, post(f"http://a.example:{canary.port}/"))).outcome is Outcome.BLOCKED
    assert (await answer_to(transport, post(f"http://c.example:{endpoint.port}/"))).outcome is Outcome.DELIVERED


async def test_aliases_in_a_circle_lead_nowhere(zone: Zone, transport: HttpTransport) -> None:
    zone.aliases |= {"a.example": "b.example", "b.example": "a.example"}

    assert (await answer_to(transport, post("http://a.example/"))).outcome is Outcome.DNS


@pytest.mark.parametrize("address", ["::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1", "fe80::1", "2002:7f00:1::1"])
async def test_a_name_of_ipv6_addresses_alone_is_judged_by_them(address: str, canary: Canary, zone: Zone, transport: HttpTransport) -> None:
    name = zone.put("six.example", address)

    assert (await answer_to(transport, post(f"http://{name}:{canary.port}/"))).outcome is Outcome.BLOCKED


@pytest.mark.parametrize("kind", ["missing", "broken", "silent"])
async def test_a_name_that_is_not_found_is_a_failure_of_its_own(kind: str, zone: Zone) -> None:
    getattr(zone, "broken" if kind == "broken" else "silent").update({"gone.example"} if kind != "missing" else set())
    async with sending(allow=("http", PERMITTED), lookup=zone.lookup, connect_timeout_s=0.5) as transport:
        answer = await answer_to(transport, post("http://gone.example/"))

    assert (answer.outcome, answer.status) == (Outcome.DNS, 0)


# The last guard


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"])  # noqa: S104 - refused
async def test_the_socket_itself_is_refused_whatever_was_judged_before(address: str, canary: Canary) -> None:
    """Even if URL, name and answers were all let through, no connection would be made."""
    finished: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def finish(_exchange: Exchange, answer: Answer) -> None:
        finished.set_result(answer)

    pool = Pool(DialPolicy(EgressPolicy(allow=("http", PERMITTED)).check_address), LIMITS, finish, finished.set_exception)
    target = Target("waved.example", (), canary.port, is_tls=False, host="waved.example", path="/", origin=("waved.example", canary.port))
    exchange = Exchange(Request(f"http://waved.example:{canary.port}/", {}, b""), lambda _answer: None, target)
    exchange.addresses = (address,)
    pool.put(exchange)
    answer = await asyncio.wait_for(finished, 60)
    pool.close()

    assert answer.outcome is Outcome.BLOCKED
