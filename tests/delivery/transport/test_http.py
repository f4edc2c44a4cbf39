"""Transport: which requests leave over which connections, and that each request is answered once."""

import asyncio
import contextlib
import os
import threading

import pytest

from services.delivery.transport.http import roots_file
from services.delivery.transport.protocol import RESPONSE_BYTES_MAX, Answer, Outcome, Request
from services.runtime.service_process import StartError
from tests.delivery.sending import answer_to, post, sending, sent
from tests.support.webhook_receivers.hostile_receivers import OK, Connection, answering, answering_once, hostile, kept_open, silent, status


async def test_a_webhook_arrives_as_it_was_made_and_nothing_is_added() -> None:
    headers = {"content-type": "application/cloudevents+json", "webhook-id": "evt_1", "X-Odd": "", "user-agent": "Hooktide/0.1"}
    async with hostile(answering(OK)) as server, sending() as transport:
        answer = await answer_to(transport, Request(server.url + "/a/../b/./c?d=%2F&e=f//g", headers, b'{"n": 1}\x00\xff'))

    assert answer == Answer(Outcome.DELIVERED, 200, "", b"", "")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body == b'{"n": 1}\x00\xff'
    assert head.split(b"\r\n") == [
        b"POST /hook/a/../b/./c?d=%2F&e=f//g HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}".encode(),
        b"content-type: application/cloudevents+json",
        b"webhook-id: evt_1",
        b"X-Odd:",
        b"user-agent: Hooktide/0.1",
        b"Content-Length: 10",
    ]


@pytest.mark.parametrize("size", [0, 1, 100_000, 1_100_000])
async def test_a_body_of_any_size_is_sent_without_asking_first(size: int) -> None:
    async with hostile(answering(OK)) as server, sending() as transport:
        answer = await answer_to(transport, post(server.url, b"x" * size))

    assert answer.outcome is Outcome.DELIVERED
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert len(body) == size
    assert b"expect" not in head.lower()


@pytest.mark.parametrize("number", [200, 201, 202, 204, 299])
async def test_every_2xx_is_a_success(number: int) -> None:
    async with hostile(answering(status(number) if number != 204 else b"HTTP/1.1 204 None\r\n\r\n")) as server, sending() as transport:
        assert await answer_to(transport, post(server.url)) == Answer(Outcome.DELIVERED, number, "", b"", "")


@pytest.mark.parametrize("number", [400, 401, 404, 410, 413, 415, 429, 500, 503, 508, 599])
async def test_every_other_status_is_a_failure_with_the_beginning_of_its_body(number: int) -> None:
    async with hostile(answering(status(number, body="why"))) as server, sending() as transport:
        answer = await answer_to(transport, post(server.url))

    assert answer == Answer(Outcome.STATUS, number, f"the server answered {number}", b"why", "")


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\ny", "a\ry", "a\x00"])
async def test_a_header_that_would_become_two_is_not_sent(value: str) -> None:
    async with hostile(answering(OK)) as server, sending() as transport:
        answers = [await answer_to(transport, Request(server.url, headers, b"")) for headers in ({"x": value}, {f"x{value}": "y"})]

    assert {answer.outcome for answer in answers} == {Outcome.PROTOCOL}
    assert server.connections == 0


async def test_a_header_beyond_ascii_is_a_failure_of_its_request_alone() -> None:
    async with hostile(answering(OK)) as server, sending() as transport:
        odd, good = sent(transport, post(server.url, x="\u20ac")), sent(transport, post(server.url))

        assert (await odd).outcome is Outcome.PROTOCOL
        assert (await good).outcome is Outcome.DELIVERED


async def test_the_environment_and_the_home_directory_count_for_nothing(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hostile(answering(OK)) as proxy, hostile(answering(OK)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("HOME", str(tmp_path))
        with open(os.path.join(tmp_path, ".netrc"), "w", encoding="ascii") as netrc:  # noqa: ASYNC230, PTH118, PTH123 - a line for a test
            netrc.write("machine 127.0.0.1 login me password secret\n")
        async with sending() as transport:
            assert (await answer_to(transport, post(server.url))).outcome is Outcome.DELIVERED

    assert proxy.connections == 0
    assert b"authorization" not in server.requests[0].lower()


async def test_cookies_are_forgotten_at_once() -> None:
    async with hostile(answering(status(200, "set-cookie: a=b; path=/"))) as server, sending() as transport:
        for _ in range(2):
            await answer_to(transport, post(server.url))

    assert len(server.requests) == 2
    assert all(b"cookie" not in request.lower() for request in server.requests)


@pytest.mark.parametrize(
    ("allow", "url", "told"),
    [
        ((), "http://127.0.0.1:9000/", "must begin with https://"),
        (("http",), "http://127.0.0.1:9000/", "loopback"),
        (("http", "127.0.0.0/8"), "http://127.0.0.1:25/", "port 25"),
        (("http", "127.0.0.0/8"), "http://user@127.0.0.1:9000/", "user name"),
    ],
)
async def test_a_url_is_judged_at_each_attempt(allow: tuple[str, ...], url: str, told: str) -> None:
    """A URL that the operator has forbidden since its subscription was made is not called any more."""
    async with sending(allow=allow) as transport:
        answer = await answer_to(transport, post(url))

    assert answer.outcome is Outcome.BLOCKED
    assert told in answer.error


# Requests that are not webhooks


async def test_a_handshake_is_answered_with_its_headers() -> None:
    raw = status(200, "WebHook-Allowed-Origin: *", "webhook-allowed-rate: 120", "webhook-allowed-rate: 7", body="ok")
    async with hostile(answering(raw)) as server, sending() as transport:
        answer = await answer_to(transport, Request(server.url, {"webhook-request-origin": "hooktide"}, b"", method="OPTIONS", whole=True))

    assert server.requests[0].startswith(b"OPTIONS /hook HTTP/1.1\r\n")
    assert b"content-length" not in server.requests[0].lower()
    assert (answer.outcome, answer.status, answer.body) == (Outcome.DELIVERED, 200, b"ok")
    assert dict(answer.headers) == {"webhook-allowed-origin": "*", "webhook-allowed-rate": "120", "content-length": "2"}


@pytest.mark.parametrize("number", [200, 400])
async def test_a_whole_answer_is_read_up_to_its_limit(number: int) -> None:
    async with hostile(answering(status(number, body="x" * 100_000))) as server, sending() as transport:
        answer = await answer_to(transport, post(server.url)._replace(whole=True))

    assert (answer.status, len(answer.body)) == (number, RESPONSE_BYTES_MAX)


async def test_special_requests_leave_nothing_behind_for_the_next() -> None:
    async with hostile(answering(status(200, "x: y", body="ok"))) as server, sending() as transport:
        for method in ("OPTIONS", "GET", "DELETE", "PUT"):
            await answer_to(transport, Request(server.url, {"a": "b"}, b"" if method != "PUT" else b"{}", method=method, whole=True))
            assert await answer_to(transport, post(server.url)) == Answer(Outcome.DELIVERED, 200, "", b"", "")

    methods = [b"OPTIONS", b"POST", b"GET", b"POST", b"DELETE", b"POST", b"PUT", b"POST"]
    assert [request.split(b" ")[0] for request in server.requests] == methods
    assert server.connections == 1


# Connections


async def test_many_requests_are_each_answered_once_with_what_is_theirs() -> None:
    async def behave(connection: Connection) -> None:
        while (request := await connection.request()) is not None:
            await asyncio.sleep(0)
            await connection.send(status(int(request.rpartition(b"\r\n\r\n")[2])))

    async with hostile(behave) as server, sending(host_connections_max=20) as transport:
        answered: list[tuple[int, int]] = []
        ended = asyncio.Event()

        def note(wanted: int, answer: Answer) -> None:
            answered.append((wanted, answer.status))
            if len(answered) == 2000:
                ended.set()

        for number in range(2000):
            wanted = 200 + number % 300
            transport.send(post(server.url, str(wanted).encode()), lambda answer, wanted=wanted: note(wanted, answer))  # type: ignore[misc]  # a default
        await asyncio.wait_for(ended.wait(), 60)

    assert all(wanted == got for wanted, got in answered)
    assert 1 < server.connections <= 20


async def test_connections_are_kept() -> None:
    async with hostile(answering(OK)) as server, sending() as transport:
        for _ in range(20):
            assert (await answer_to(transport, post(server.url))).outcome is Outcome.DELIVERED

    assert server.connections == 1


async def test_a_host_has_its_own_limit_and_its_waiters_lose_no_time() -> None:
    """A request that waits for its turn has not begun, and its time limit has not started."""
    release = asyncio.Event()
    under_way, most = 0, 0

    async def behave(connection: Connection) -> None:
        nonlocal under_way, most
        while await connection.request() is not None:
            under_way += 1
            most = max(most, under_way)
            await release.wait()
            under_way -= 1
            await connection.send(OK)

    async with hostile(behave) as slow, hostile(answering(OK)) as quick, sending(host_connections_max=3, timeout_s=1.0) as transport:
        waiting = [sent(transport, post(slow.url)) for _ in range(9)]
        assert (await answer_to(transport, post(quick.url))).outcome is Outcome.DELIVERED, "another host does not wait"
        first = await asyncio.gather(*waiting[:3])
        release.set()
        rest = await asyncio.gather(*waiting[3:])

    assert {answer.outcome for answer in first} == {Outcome.TIMEOUT}
    assert {answer.outcome for answer in rest} == {Outcome.DELIVERED}
    assert most == 3


async def test_one_consumers_requests_for_a_host_keep_nobody_elses_waiting_behind_all_of_them() -> None:
    """Consumers take turns for the connections to a host, and for all connections."""
    order = list[bytes]()

    async def behave(connection: Connection) -> None:
        while (request := await connection.request()) is not None:
            order.append(request.rpartition(b"\r\n\r\n")[2])
            await all_wait.wait()
            await connection.send(OK)

    for limit in ("host_connections_max", "connections_max"):
        all_wait = asyncio.Event()
        order.clear()
        async with hostile(behave) as server, sending(**{limit: 2}) as transport:  # type: ignore[arg-type]  # a limit alone
            greedy = [sent(transport, post(server.url, b"greedy")._replace(owner="a")) for _ in range(20)]
            honest = sent(transport, post(server.url, b"honest")._replace(owner="b"))
            while len(order) < 2:  # noqa: ASYNC110 - the server's side
                await asyncio.sleep(0)
            all_wait.set()
            assert (await honest).outcome is Outcome.DELIVERED
            await asyncio.gather(*greedy)
        assert order.index(b"honest") <= 4


async def test_a_consumer_with_many_hosts_has_its_own_idle_connections_closed() -> None:
    async with contextlib.AsyncExitStack() as stack:
        honest = await stack.enter_async_context(hostile(answering(OK)))
        servers = [await stack.enter_async_context(hostile(answering(OK), host=f"127.0.0.{number}")) for number in range(2, 12)]
        transport = await stack.enter_async_context(sending(connections_max=5))
        # First three of the other consumer's connections are idle.
        for server in servers[:3]:
            await answer_to(transport, post(server.url)._replace(owner="many"))
        await answer_to(transport, post(honest.url)._replace(owner="one"))
        for server in servers[3:]:
            await answer_to(transport, post(server.url)._replace(owner="many"))
            await answer_to(transport, post(servers[9].url)._replace(owner="many"))
        assert (await answer_to(transport, post(honest.url)._replace(owner="one"))).outcome is Outcome.DELIVERED
    assert honest.connections == 1


async def test_all_connections_together_have_a_limit() -> None:
    """An idle connection is closed to make room for a new one."""
    open_now: set[Connection] = set()

    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(hostile(kept_open(open_now), host=f"127.0.0.{number}")) for number in range(2, 12)]
        transport = await stack.enter_async_context(sending(connections_max=4))
        for server in servers:
            assert (await answer_to(transport, post(server.url))).outcome is Outcome.DELIVERED
        async with asyncio.timeout(60):
            while len(open_now) > 4:  # noqa: ASYNC110 - the server's side of the connections
                await asyncio.sleep(0)


# A kept connection that has gone stale


async def test_a_connection_that_was_closed_while_idle_costs_nothing() -> None:
    async with hostile(answering_once(OK)) as server, sending() as transport:
        outcomes = [(await answer_to(transport, post(server.url))).outcome for _ in range(10)]

    assert outcomes == [Outcome.DELIVERED] * 10
    assert len(server.requests) == 10


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("read", [True, False], ids=["after the request was read", "before it was read"])
async def test_a_kept_connection_that_breaks_under_a_request_costs_no_attempt(*, read: bool, reset: bool) -> None:
    """The worst moment: the endpoint closes a kept connection just when a request is on its way."""

    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.send(OK)
        if read:
            await connection.request()
        else:
            await connection.reader.read(1)
        if reset:
            connection.reset()

    async with hostile(behave) as server, sending() as transport:
        outcomes = [(await answer_to(transport, post(server.url))).outcome for _ in range(6)]

    assert outcomes == [Outcome.DELIVERED] * 6


async def test_kept_connections_that_all_break_at_once_cost_no_attempt() -> None:
    broken = False

    async def behave(connection: Connection) -> None:
        while await connection.request() is not None:
            if broken and connection in before:
                connection.reset()
                return
            kept.append(connection)
            await connection.send(OK)

    kept: list[Connection] = []
    before: list[Connection] = []
    async with hostile(behave) as server, sending() as transport:
        await asyncio.gather(*(sent(transport, post(server.url)) for _ in range(20)))
        before, broken = kept[:], True
        answers = await asyncio.gather(*(sent(transport, post(server.url)) for _ in range(20)))

    assert {answer.outcome for answer in answers} == {Outcome.DELIVERED}


async def test_an_endpoint_that_always_breaks_is_not_asked_for_ever() -> None:
    async def behave(connection: Connection) -> None:
        if len(server.requests) == 0:
            await connection.request()
            await connection.send(OK)
        await connection.request()
        connection.reset()

    async with hostile(behave) as server, sending() as transport:
        assert (await answer_to(transport, post(server.url))).outcome is Outcome.DELIVERED
        assert (await answer_to(transport, post(server.url))).outcome is Outcome.RESET
    assert len(server.requests) <= 7


# The end


async def test_what_is_under_way_at_the_end_is_answered_as_reset() -> None:
    async with hostile(silent) as server:
        async with sending(host_connections_max=4, lookup=_slow_lookup) as transport:
            waiting = [sent(transport, post(server.url)) for _ in range(10)]
            named = sent(transport, post("http://slow.example/"))
            async with asyncio.timeout(60):
                while server.connections < 4:  # noqa: ASYNC110 - the server's side of the connections
                    await asyncio.sleep(0)
            waiting.append(sent(transport, post(server.url)))
        assert all(future.done() for future in (*waiting, named))
        assert {future.result().outcome for future in (*waiting, named)} == {Outcome.RESET}

        late = sent(transport, post(server.url))
        assert (await late).outcome is Outcome.RESET


def _slow_lookup(_name: str) -> list[str]:
    _RELEASED.wait(0.5)
    return ["127.0.0.1"]


_RELEASED = threading.Event()


async def test_a_fault_within_ends_what_runs_on_it() -> None:
    async with hostile(answering(OK)) as server:
        with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012 - the fault comes while it runs
            async with sending() as transport:
                transport._pool._limits = None  # type: ignore[assignment]  # noqa: SLF001 - broken on purpose
                transport.send(post(server.url), lambda _answer: None)
                await asyncio.Event().wait()

    assert caught.group_contains(AttributeError)


def test_a_machine_without_trusted_certificates_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at/all.pem")

    with pytest.raises(StartError, match="SSL_CERT_FILE"):
        roots_file()
