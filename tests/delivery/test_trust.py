"""Trust: what a subscription's own certificates cost, and what becomes of those that cannot be read."""

import asyncio
import ssl
from pathlib import Path

import pytest

from services.delivery.model import Outcome
from services.delivery.transport.protocol import Tls
from services.delivery.transport.trust import Trust, Trusts
from tests.delivery.certificates import Authority
from tests.delivery.hostile import OK, Connection, answering, hostile, kept_open
from tests.delivery.sending import answer_to, post, sending


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_of_many_trusts_few_are_kept_and_all_are_served(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their connections go with them, since each has a megabyte of authorities."""
    monkeypatch.setattr("services.delivery.transport.trust._TRUSTS_MAX", 4)
    open_now: set[Connection] = set()

    async with hostile(kept_open(open_now), tls=authority.server("127.0.0.1")) as server, sending(roots=authority.file) as transport:
        for number in range(8):
            (tmp_path / str(number)).mkdir()
            mine = Tls(ca_pem=Authority(tmp_path / str(number)).pem)
            assert (await answer_to(transport, post(server.url)._replace(tls=mine))).outcome is Outcome.DELIVERED
        async with asyncio.timeout(10):
            while len(open_now) > 4:  # noqa: ASYNC110 - the server's side of the connections
                await asyncio.sleep(0)


async def test_a_trust_is_made_once_for_all_who_wait_for_it(authority: Authority) -> None:
    trusts, found = Trusts(authority.pem), list[Trust | str]()
    for _ in range(3):
        trusts.ask(Tls(ca_pem=authority.pem), found.append)
    assert found == []
    async with asyncio.timeout(10):
        while len(found) < 3:  # noqa: ASYNC110 - told by a thread
            await asyncio.sleep(0)
    assert isinstance(found[0], Trust)
    assert found[0] is found[1] is found[2] is trusts.known(Tls(ca_pem=authority.pem))
    assert found[0].context.verify_mode is ssl.CERT_REQUIRED
    assert found[0].context.check_hostname
    trusts.close()


@pytest.mark.parametrize("pem", [b"junk", b"\xff", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
async def test_authorities_that_cannot_be_read_are_said_so(pem: bytes, authority: Authority) -> None:
    async with hostile(answering(OK), tls=authority.server("127.0.0.1")) as server, sending(roots=authority.file) as transport:
        answer = await answer_to(transport, post(server.url)._replace(tls=Tls(ca_pem=pem)))
    assert answer.outcome is Outcome.TLS
    assert "authorities cannot be read" in answer.error
