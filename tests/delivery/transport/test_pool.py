"""Pool: requests take turns; whatever endpoints do, and whenever requests are withdrawn, each gets exactly one answer, and its own."""

import asyncio
import contextlib
import functools
import gc
import os
import random
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from services.delivery.transport.http import HttpTransport
from services.delivery.transport.pool import Pool
from services.delivery.transport.protocol import WITHDRAWN, Answer, Outcome, Request, Tls
from tests.delivery.sending import post, sending, sent
from tests.support.certificates import Authority
from tests.support.webhook_receivers.hostile_receivers import OK, Behaviour, Connection, hostile, status

# The seed does not decide when a socket is ready, so some kinds of answers are missing in some rounds.
_ROUNDS_MIN, _ROUNDS_MAX = 6, 60
_KINDS = {Outcome.DELIVERED, Outcome.STATUS, Outcome.TIMEOUT, Outcome.CONNECT, Outcome.RESET, Outcome.TLS, Outcome.PROTOCOL}
_REQUESTS = 150
_sending = functools.partial(
    sending, timeout_s=0.4, connect_timeout_s=0.3, first_byte_timeout_s=0.3, connections_max=5, host_connections_max=3
)
_ADDRESSES = {"first.example": ["127.0.0.1"], "second.example": ["127.0.0.9", "127.0.0.1"], "third.example": ["127.0.0.9", "127.0.0.8"]}


async def _answer(connection: Connection, own: bytes) -> None:
    await connection.send(own)


async def _answer_too_much(connection: Connection, own: bytes) -> None:
    await connection.send(own + b"HTTP/1.1 599 Extra\r\ncontent-length: 0\r\n\r\n")


async def _answer_and_close(connection: Connection, own: bytes) -> None:
    await connection.send(own)
    connection.writer.close()


async def _answer_half(connection: Connection, own: bytes) -> None:
    await _answer_and_close(connection, own[: len(own) // 2])


async def _answer_slowly(connection: Connection, own: bytes) -> None:
    for at in range(len(own)):
        await connection.send(own[at : at + 1])
        await asyncio.sleep(0)


async def _answer_junk(connection: Connection, _own: bytes) -> None:
    await connection.send(b"junk\r\n\r\n")


async def _reset(connection: Connection, _own: bytes) -> None:
    connection.reset()


async def _wait(_connection: Connection, _own: bytes) -> None:
    await asyncio.Event().wait()


_WAYS = (_answer, _answer_too_much, _answer_and_close, _answer_half, _answer_slowly, _answer_junk, _reset, _wait)
_WEIGHTS = (60, 5, 5, 5, 5, 5, 5, 2)


def misbehaving(chance: random.Random) -> Behaviour:
    """Answer most requests with their own body, and misbehave for the others."""

    async def behave(connection: Connection) -> None:
        if chance.random() < 0.05:
            connection.reset()
        while (request := await connection.request()) is not None:
            own = status(chance.choice([200, 500]), body=request.rpartition(b"\r\n\r\n")[2].decode())
            await chance.choices(_WAYS, _WEIGHTS)[0](connection, own)

    return behave


class Requests:
    """The requests, and every answer to each of them."""

    def __init__(self) -> None:
        self.answers: list[list[Answer]] = []

    def send(self, transport: HttpTransport, url: str, chance: random.Random, trusts: list[Tls | None]) -> None:
        """Send one request of a random subscription; its body is its number."""
        answers, number = list[Answer](), len(self.answers)
        self.answers.append(answers)
        tls = chance.choice(trusts) if url.startswith("https:") else None
        headers = {"x": "\n"} if chance.random() < 0.05 else {}
        request = Request(url, headers, str(number).encode(), tls=tls, subscription_id=chance.choice("abcd"), whole=True)
        transport.send(request, answers.append)

    def all_are_answered(self) -> bool:
        """Return whether every request is answered."""
        return all(self.answers)

    def check(self) -> None:
        """Check that each request was answered once, and not with another request's answer."""
        for number, answers in enumerate(self.answers):
            assert len(answers) == 1, number
            assert answers[0].status in {0, 200, 500}
            assert answers[0].status == 0 or answers[0].body == str(number).encode()


def check_at_rest(pool: Pool) -> None:
    """Check that the pool's counters match its connections."""
    hosts = pool._hosts.values()  # noqa: SLF001 - nothing else tells
    assert [(host.under_way, len(host.waiting)) for host in hosts] == [(0, 0)] * len(hosts)
    assert all(host.idle for host in hosts)
    assert {connection for host in hosts for connection in host.idle} == set(pool._idle) == set(pool._open)  # noqa: SLF001 - as above
    assert not pool._waiting  # noqa: SLF001 - as above


def open_files() -> int:
    """Return the number of open file descriptors of this process."""
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - a Path of each is not wanted


async def play(chance: random.Random, authority: Authority, context: ssl.SSLContext) -> list[Answer]:
    """Send many requests at once and withdraw some; let all be answered, or close the transport. Return the answers."""
    requests, cut_off = Requests(), chance.random() < 0.5
    async with contextlib.AsyncExitStack() as stack:
        hosts = [f"127.0.0.{number}" for number in (1, 2, 3)]
        plain = [await stack.enter_async_context(hostile(misbehaving(chance), host=host)) for host in hosts]
        tls = [await stack.enter_async_context(hostile(misbehaving(chance), host=host, tls=context)) for host in hosts]
        urls = [server.url for server in (*plain, *tls)]
        urls += [server.url.replace("127.0.0.1", name) for server in (plain[0], tls[0]) for name in _ADDRESSES]
        trusts = [None, Tls(ca_pem=authority.pem), Tls(ca_pem=b"\xff")]
        async with asyncio.timeout(20), _sending(roots=authority.file, lookup=_ADDRESSES.__getitem__) as transport:
            for _ in range(_REQUESTS):
                requests.send(transport, chance.choice(urls), chance, trusts)
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.choice([0, 0, 0.005]))
                if chance.random() < 0.03:
                    transport.withdraw(chance.choice("abcd"))
            while not cut_off and not requests.all_are_answered():  # noqa: ASYNC110 - as simple as can be
                await asyncio.sleep(0.01)
            if not cut_off:
                check_at_rest(transport._pool)  # noqa: SLF001 - as above
    await asyncio.sleep(0)
    requests.check()
    return [answers[0] for answers in requests.answers]


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("seed", [1])
def test_each_request_is_answered_once_and_nothing_is_left_open(
    seed: int, loop_factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    """Both event loops, plain and TLS, fewer connections than the hosts want; rounds go on until every kind of answer has come."""
    authority, chance, answers = Authority(tmp_path), random.Random(seed), list[Answer]()
    context = authority.server(*(f"127.0.0.{number}" for number in (1, 2, 3)), *_ADDRESSES)

    def seen_all() -> bool:
        return {answer.outcome for answer in answers} == _KINDS and WITHDRAWN in answers

    async def rounds() -> None:
        # An event loop opens files of its own as it runs.
        answers.extend(await play(chance, authority, context))
        gc.collect()
        before = open_files()
        for count in range(_ROUNDS_MAX):
            if count >= _ROUNDS_MIN and seen_all():
                break
            answers.extend(await play(chance, authority, context))
            async with asyncio.timeout(5):
                while open_files() > before:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(rounds())
    assert seen_all()


async def test_many_that_cannot_be_made_may_wait_for_a_turn() -> None:
    """Each of them takes its turn, fails and passes the turn on."""

    async def behave(connection: Connection) -> None:
        await connection.request()
        async with asyncio.timeout(10):
            while len(waiting) < 3000:  # noqa: ASYNC110 - the test's side
                await asyncio.sleep(0)
        await connection.send(OK)

    waiting: list[asyncio.Future[Answer]] = []
    async with hostile(behave) as server, sending(host_connections_max=1) as transport:
        first = sent(transport, post(server.url))
        waiting += [sent(transport, post(server.url, x="\r\n")) for _ in range(3000)]
        assert (await first).outcome is Outcome.DELIVERED
        assert {(await answer).outcome for answer in waiting} == {Outcome.PROTOCOL}


async def test_what_waits_for_a_connection_has_it_before_a_host_that_has_more_to_send() -> None:
    """Otherwise a busy host would keep all connections, and the other hosts' requests would time out before they leave."""
    order, all_wait = list[str](), asyncio.Event()

    def behaviour(name: str) -> Behaviour:
        async def behave(connection: Connection) -> None:
            while await connection.request() is not None:
                order.append(name)
                await all_wait.wait()
                await connection.send(OK)

        return behave

    async with (
        hostile(behaviour("busy")) as busy,
        hostile(behaviour("other")) as other,
        sending(connections_max=1, host_connections_max=1) as transport,
    ):
        answers = [sent(transport, post(busy.url)) for _ in range(5)]
        answers.append(sent(transport, post(other.url)))
        while not order:  # noqa: ASYNC110 - the server's side
            await asyncio.sleep(0)
        all_wait.set()
        assert {answer.outcome for answer in await asyncio.gather(*answers)} == {Outcome.DELIVERED}
    assert order == ["busy", "other", *["busy"] * 4]
