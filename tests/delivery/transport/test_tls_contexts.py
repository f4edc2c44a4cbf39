"""TLS contexts: what a subscription's own certificates cost, and what happens if they cannot be read."""

import asyncio
import ssl
from pathlib import Path

import pytest

from services.delivery.transport.protocol import Outcome, Tls
from services.delivery.transport.tls_contexts import TOO_LATE, TlsContext, TlsContexts
from tests.delivery.sending import answer_to, post, sending
from tests.support.certificates import Authority
from tests.support.webhook_receivers.hostile_receivers import OK, Connection, answering, hostile, kept_open


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def contexts_of(authority: Authority, kept_max: int = 4, timeout_s: float = 60.0) -> TlsContexts:
    return TlsContexts(authority.pem, kept_max=lambda: kept_max, timeout_s=timeout_s)


def other(number: int) -> Tls:
    """Return one of many unusable certificates, which take time to reject."""
    return Tls(ca_pem=str(number).encode())


def asked(contexts: TlsContexts, tls: Tls, owner: str) -> asyncio.Future[TlsContext | str]:
    future: asyncio.Future[TlsContext | str] = asyncio.get_running_loop().create_future()
    contexts.make(tls, owner, future.set_result)
    return future


async def test_of_many_trusts_few_are_kept_and_all_are_served(authority: Authority, tmp_path: Path) -> None:
    """The connections of a dropped context close with it, since each holds a megabyte of authorities."""
    open_now: set[Connection] = set()

    async with (
        hostile(kept_open(open_now), tls=authority.server("127.0.0.1")) as server,
        sending(roots=authority.file, contexts_max=4) as transport,
    ):
        for number in range(8):
            (tmp_path / str(number)).mkdir()
            mine = Tls(ca_pem=Authority(tmp_path / str(number)).pem)
            assert (await answer_to(transport, post(server.url)._replace(tls=mine))).outcome is Outcome.DELIVERED
        async with asyncio.timeout(10):
            while len(open_now) > 4:  # noqa: ASYNC110 - the server's side of the connections
                await asyncio.sleep(0)


async def test_a_trust_is_made_once_for_all_who_wait_for_it(authority: Authority) -> None:
    contexts, found = contexts_of(authority), list[TlsContext | str]()
    for owner in "aab":
        contexts.make(Tls(ca_pem=authority.pem), owner, found.append)
    assert found == []
    async with asyncio.timeout(10):
        while len(found) < 3:  # noqa: ASYNC110 - told by a thread
            await asyncio.sleep(0)
    assert isinstance(found[0], TlsContext)
    assert found[0] is found[1] is found[2] is contexts.cached(Tls(ca_pem=authority.pem), "a")
    assert found[0].context.verify_mode is ssl.CERT_REQUIRED
    assert found[0].context.check_hostname
    contexts.close()


@pytest.mark.parametrize("pem", [b"junk", b"\xff", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
async def test_authorities_that_cannot_be_read_are_said_so(pem: bytes, authority: Authority) -> None:
    async with hostile(answering(OK), tls=authority.server("127.0.0.1")) as server, sending(roots=authority.file) as transport:
        answer = await answer_to(transport, post(server.url)._replace(tls=Tls(ca_pem=pem)))
    assert answer.outcome is Outcome.TLS
    assert "authorities cannot be read" in answer.error


async def test_a_consumer_with_many_trusts_keeps_nobody_waiting_for_one(authority: Authority) -> None:
    """Others do not wait even if the consumer itself waits for the same context, behind all its others."""
    contexts, mine = contexts_of(authority), Tls(ca_pem=authority.pem)
    many = [asked(contexts, other(number), "attacker") for number in range(140)]
    same = asked(contexts, mine, "attacker")

    assert isinstance(await asyncio.wait_for(asked(contexts, mine, "victim"), 60), TlsContext)
    assert sum(future.done() for future in many) <= 3
    assert same.done()
    contexts.close()


async def test_trusts_of_one_consumer_displace_none_of_another(authority: Authority) -> None:
    """A context that both consumers use counts for the consumer with the fewest contexts."""
    contexts, mine, shared = contexts_of(authority), Tls(ca_pem=authority.pem), Tls(ca_pem=authority.pem * 2)
    await asked(contexts, shared, "attacker")
    await asked(contexts, mine, "victim")
    for number in range(10):
        await asked(contexts, other(number), "attacker")
        if number == 1:
            assert contexts.cached(shared, "victim") is not None

    assert contexts.cached(mine, "victim") is not None
    assert contexts.cached(shared, "victim") is not None
    assert [number for number in range(10) if contexts.cached(other(number), "attacker") is not None] == [8, 9]
    contexts.close()


async def test_who_waits_too_long_for_a_trust_is_told_so(authority: Authority) -> None:
    contexts = contexts_of(authority, timeout_s=0.02)
    many = [asked(contexts, other(number), "attacker") for number in range(1000)]
    assert TOO_LATE in await asyncio.gather(*many)
    contexts.close()
