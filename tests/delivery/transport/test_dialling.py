"""Dialling: what happens to a request whose connection cannot be made."""

import asyncio
import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.delivery.transport.protocol import Outcome, Tls
from tests.delivery.sending import answer_to, post, sending, sent
from tests.support.certificates import Authority
from tests.support.webhook_receivers.hostile_receivers import OK, Connection, answering, hostile


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """Use up all file descriptors that this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup(0)
    os.close(highest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_a_file_to_open_a_request_fails_and_the_transport_goes_on() -> None:
    async with hostile(answering(OK)) as server, sending() as transport:
        await answer_to(transport, post(server.url))
        with no_more_files():
            assert (await answer_to(transport, post(server.url.replace("127.0.0.1", "127.0.0.2")))).outcome is Outcome.CONNECT
            assert (await answer_to(transport, post(server.url))).outcome is Outcome.DELIVERED


async def test_without_a_file_to_open_nothing_new_is_trusted_until_there_is_one(authority: Authority) -> None:
    async with hostile(answering(OK), tls=authority.server("127.0.0.1")) as server, sending(roots=authority.file) as transport:
        request = post(server.url)._replace(tls=Tls(ca_pem=authority.pem))
        shown = post(server.url)._replace(tls=authority.client("ours"))
        with no_more_files():
            assert (await answer_to(transport, request)).outcome is Outcome.TLS
            assert (await answer_to(transport, shown)).outcome is Outcome.TLS
        assert (await answer_to(transport, request)).outcome is Outcome.DELIVERED
        assert (await answer_to(transport, shown)).outcome is Outcome.DELIVERED


async def test_a_connection_that_ends_between_connecting_and_tls_is_a_failure_of_tls() -> None:
    async def behave(connection: Connection) -> None:
        connection.reset()

    async with hostile(behave) as server, sending() as transport:
        answers = await asyncio.gather(*(sent(transport, post(server.url.replace("http:", "https:"))) for _ in range(32)))
    assert {answer.outcome for answer in answers} <= {Outcome.TLS, Outcome.CONNECT}
