"""Policy change: the operator changes which sinks are allowed while connections are open."""

import asyncio
from collections.abc import Sequence

import pytest

from services.delivery.transport.http import open_http_transport
from services.delivery.transport.protocol import Outcome
from services.egress.policy import EgressPolicy
from tests.delivery.sending import LIMITS, LOOPBACK, answer_to, post, sent
from tests.support.webhook_receivers.hostile_receivers import OK, Connection, hostile

WITHIN_S = 60.0


def loopback(_name: str) -> Sequence[str]:
    return ("127.0.0.1",)


@pytest.mark.parametrize("busy", [False, True])
async def test_a_connection_to_what_is_forbidden_now_is_closed_and_an_answer_that_is_awaited_is_taken(*, busy: bool) -> None:
    """The sink has a name, so both its addresses and its connection were cached; when it is allowed again, it is called again."""
    came, release, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def behave(connection: Connection) -> None:
        while await connection.request() is not None:
            came.set()
            await release.wait()
            await connection.send(OK)
        closed.set()

    policy = EgressPolicy(LOOPBACK)
    async with hostile(behave) as server, open_http_transport(policy, LIMITS, lookup=loopback) as transport:
        url = server.url.replace("127.0.0.1", "sink.example")
        release.set()
        assert (await answer_to(transport, post(url))).outcome is Outcome.DELIVERED
        if busy:
            release.clear()
            came.clear()
            under_way = sent(transport, post(url))
            await asyncio.wait_for(came.wait(), WITHIN_S)
        policy.replace(EgressPolicy(LOOPBACK, deny=["127.0.0.0/8"]))
        if busy:
            release.set()
            assert (await asyncio.wait_for(under_way, WITHIN_S)).outcome is Outcome.DELIVERED
        await asyncio.wait_for(closed.wait(), WITHIN_S)
        assert (await answer_to(transport, post(url))).outcome is Outcome.BLOCKED
        policy.replace(EgressPolicy(LOOPBACK))
        assert (await answer_to(transport, post(url))).outcome is Outcome.DELIVERED


async def test_a_scheme_that_is_forbidden_now_is_refused_though_its_url_was_judged_before() -> None:
    async def behave(connection: Connection) -> None:
        while await connection.request() is not None:
            await connection.send(OK)

    policy = EgressPolicy(LOOPBACK)
    async with hostile(behave) as server, open_http_transport(policy, LIMITS, lookup=loopback) as transport:
        assert (await answer_to(transport, post(server.url))).outcome is Outcome.DELIVERED
        policy.replace(EgressPolicy(["127.0.0.0/8"]))
        assert (await answer_to(transport, post(server.url))).outcome is Outcome.BLOCKED
