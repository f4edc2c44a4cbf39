"""Access tokens: OAuth2 end to end, with a running registry, ingest and delivery, a sink, and an authorization server."""

import asyncio
import base64
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import trustme
from aiohttp import web
from hooktide.delivery.v1 import delivery_pb2
from hooktide.subscription.v1 import subscription_pb2 as pb

from tests.delivery.system import Delivering, State, System
from tests.support.events import cloud_event
from tests.support.waiting import until, until_so
from tests.support.webhook_receivers.receiver import Arrival, Receiver

DELIVERED, EXHAUSTED, PENDING = State.DELIVERY_STATE_DELIVERED, State.DELIVERY_STATE_EXHAUSTED, State.DELIVERY_STATE_PENDING
CREDENTIAL = delivery_pb2.ATTEMPT_OUTCOME_CREDENTIAL
CLIENT_ID, CLIENT_SECRET = "client 1", "s:ecret"


@dataclass
class Authority:
    """An authorization server that knows one client."""

    scheme: str = "http"
    port: int = 0
    expires_in: int = 3600
    status: int = 200
    given: list[str] = field(default_factory=list)
    going_on: asyncio.Event | None = None
    """If set, a call waits for this event."""
    forms: list[dict[str, str]] = field(default_factory=list)

    async def token(self, request: web.Request) -> web.Response:
        """Give out a new token for each call."""
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        if self.going_on is not None:
            await self.going_on.wait()
        wanted = "Basic " + base64.b64encode(b"client+1:s%3Aecret").decode()
        if request.headers["authorization"] != wanted or self.status != 200:
            return web.json_response({"error": "invalid_client"}, status=401 if self.status == 200 else self.status)
        self.given.append(f"token-{len(self.given) + 1}")
        return web.json_response({"access_token": self.given[-1], "token_type": "bearer", "expires_in": self.expires_in})


@contextlib.asynccontextmanager
async def authority(host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Authority]:
    """Run an authorization server."""
    state = Authority(scheme="http" if tls is None else "https")
    application = web.Application()
    application.router.add_post("/token", state.token)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port, reuse_address=True, ssl_context=tls).start()
    state.port = runner.addresses[0][1]
    try:
        yield state
    finally:
        await runner.cleanup()


async def subscribed(
    system: System,
    sink: str,
    port: int,
    host: str = "127.0.0.1",
    secret: str = CLIENT_SECRET,
    *,
    scheme: str = "http",
    ca: str = "",
    owner: str = "",
) -> pb.Subscription:
    """Create a subscription whose sink wants access tokens."""
    oauth2 = pb.OAuth2Credential(token_url=f"{scheme}://{host}:{port}/token", client_id=CLIENT_ID, client_secret=secret, scope="a b")
    settings = pb.ProtocolSettings(ca_certificates=ca)
    subscription = pb.Subscription(sink=sink, sink_credential=pb.SinkCredential(oauth2=oauth2), protocol_settings=settings)
    request = pb.CreateSubscriptionRequest(consumer_id=owner or system.consumer_id, subscription=subscription)
    return (await system.registry.call(system.registry.subscriptions.CreateSubscription, request)).subscription


def tokens(hooks: list[Arrival]) -> list[str]:
    """Return the tokens that webhooks carried."""
    return [hook.headers["authorization"].removeprefix("Bearer ") for hook in hooks]


async def tried(delivering: Delivering, outcome: int) -> list[delivery_pb2.Attempt]:
    """Wait for a delivery whose first attempt has failed with an outcome; return its attempts."""
    found: list[delivery_pb2.Attempt] = []

    async def has_failed() -> bool:
        for each in await delivering.deliveries():
            found[:] = (await delivering.delivery(each.id)).attempts
        return bool(found)

    await until_so(has_failed)
    assert found[0].outcome == outcome
    return found


async def test_one_token_serves_all_deliveries_until_it_ends(system: System, hooks: Receiver) -> None:
    async with authority() as server, system.delivering() as delivering:
        await subscribed(system, hooks.url(), server.port)
        await system.publish(*(cloud_event(str(number)) for number in range(20)))
        await delivering.until(20, state=DELIVERED)
    assert set(tokens(hooks.arrivals)) == {"token-1"}
    assert server.forms == [{"grant_type": "client_credentials", "scope": "a b"}]


async def test_a_token_is_renewed_before_it_ends(system: System, hooks: Receiver) -> None:
    async with authority() as server, system.delivering() as delivering:
        server.expires_in = 2
        await subscribed(system, hooks.url(), server.port)

        numbers = itertools.count()

        async def three_were_used() -> bool:
            await system.publish(cloud_event(str(next(numbers))))
            return len(set(tokens(hooks.arrivals))) >= 3

        await until_so(three_were_used)
        assert max(each.attempt_count for each in await delivering.deliveries()) == 1
    assert len(server.given) <= len(set(tokens(hooks.arrivals))) + 1


async def test_a_token_that_the_sink_refuses_is_replaced_within_the_attempt(system: System, hooks: Receiver) -> None:
    hooks.answer = lambda hook: 401 if hook.headers["authorization"].endswith("token-1") else 200
    async with authority() as server, system.delivering() as delivering:
        await subscribed(system, hooks.url(), server.port)
        await system.publish(cloud_event("7"))
        (found,) = await delivering.until(1, state=DELIVERED)
    assert (tokens(hooks.arrivals), found.attempt_count) == (["token-1", "token-2"], 1)
    assert [hook.attempt for hook in hooks.arrivals] == [1, 1]


async def test_a_sink_that_refuses_every_token_costs_the_server_one_more(system: System, hooks: Receiver) -> None:
    hooks.answer = lambda _hook: 401
    async with authority() as server, system.delivering(HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="0.1,0.1") as delivering:
        await subscribed(system, hooks.url(), server.port)
        await system.publish(cloud_event("7"))
        (found,) = await delivering.until(1, state=EXHAUSTED)
    assert (found.attempt_count, found.last_status, len(hooks.arrivals), len(server.given)) == (3, 401, 4, 2)


async def test_a_server_that_is_down_fails_attempts_until_it_is_back(system: System, hooks: Receiver) -> None:
    async with authority() as server:
        port = server.port
    async with system.delivering() as delivering:
        await subscribed(system, hooks.url(), port)
        await system.publish(cloud_event("7"))
        first, *_ = await tried(delivering, CREDENTIAL)
        assert (first.status, hooks.arrivals) == (0, [])
        assert "the call to the authorization server failed (connect:" in first.error
        async with authority(port=port):
            await delivering.until(1, state=DELIVERED)
    assert tokens(hooks.arrivals) == ["token-1"]


@pytest.mark.parametrize("status", [200, 500, 302])
async def test_a_server_that_gives_no_token_is_named_without_secrets(system: System, hooks: Receiver, status: int) -> None:
    async with authority() as server, system.delivering() as delivering:
        server.status = status
        await subscribed(system, hooks.url(), server.port, secret="wr0ng-secret")
        await system.publish(cloud_event("7"))
        first, *_ = await tried(delivering, CREDENTIAL)
    answered = 401 if status == 200 else status
    assert first.error == f"no access token could be fetched: the authorization server answered {answered} (invalid_client)"
    assert hooks.arrivals == []


async def test_a_server_at_a_forbidden_address_is_not_called(system: System, hooks: Receiver) -> None:
    async with authority("127.0.0.2") as server, system.delivering(HOOKTIDE_SINK_DENY="127.0.0.2/32") as delivering:
        await subscribed(system, hooks.url(), server.port, "127.0.0.2")
        await system.publish(cloud_event("7"))
        first, *_ = await tried(delivering, CREDENTIAL)
    assert "blocked:" in first.error
    assert (server.forms, hooks.arrivals) == ([], [])


def private_tls() -> tuple[ssl.SSLContext, str]:
    """Return a TLS context for a server on this machine, and the certificate (PEM) of the private authority that signed it."""
    private = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    private.issue_cert("127.0.0.1").configure_cert(context)
    return context, private.cert_pem.bytes().decode()


async def test_a_server_behind_a_private_authority_is_trusted_by_the_subscriptions_own_certificates(
    system: System, hooks: Receiver
) -> None:
    """So is the sink; the certificates of one subscription count for no other subscription, though both call the same server."""
    tls, ca = private_tls()
    async with authority(tls=tls) as server, system.delivering() as delivering:
        await subscribed(system, hooks.url("/with"), server.port, scheme="https", ca=ca)
        await system.publish(cloud_event("7"))
        await delivering.until(1, state=DELIVERED)
        without = await subscribed(system, hooks.url("/without"), server.port, scheme="https")
        await system.publish(cloud_event("8"))
        await delivering.until(2, state=DELIVERED)

        async def has_failed() -> bool:
            return any(each.attempt_count for each in await delivering.deliveries(subscription_id=without.id))

        await until_so(has_failed)
        (found,) = await delivering.deliveries(subscription_id=without.id)
        first = (await delivering.delivery(found.id)).attempts[0]
    assert (first.outcome, first.status) == (CREDENTIAL, 0)
    assert "the call to the authorization server failed (tls: TLS failed:" in first.error
    assert {(hook.path, *tokens([hook])) for hook in hooks.arrivals} == {("/with", "token-1")}


async def test_certificates_that_are_given_later_are_used_at_once(system: System, hooks: Receiver) -> None:
    """Earlier failures of the server do not delay the next call."""
    tls, ca = private_tls()
    async with authority(tls=tls) as server, system.delivering(HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS="0.1,0.1,0.1") as delivering:
        made = await subscribed(system, hooks.url(), server.port, scheme="https")
        await system.publish(cloud_event("7"))
        await delivering.until(1, state=EXHAUSTED)
        changed = pb.Subscription(id=made.id, protocol_settings=pb.ProtocolSettings(ca_certificates=ca))
        await system.registry.update(system.consumer_id, changed, "protocol_settings.ca_certificates")
        await system.publish(cloud_event("8"))
        await delivering.until(1, state=DELIVERED)
    assert tokens(hooks.arrivals) == ["token-1"]


async def test_what_waits_for_another_token_is_not_sent_once_its_subscription_is_off(system: System, hooks: Receiver) -> None:
    """The first answer, 401, stands; no request is sent after the subscription was disabled."""
    going_on = asyncio.Event()
    async with authority() as server, system.delivering() as delivering:

        def refuse(hook: Arrival) -> int:
            server.going_on = going_on
            return 401 if hook.path == "/hook" else 200

        async def asked_again() -> bool:
            return len(server.forms) == 2

        hooks.answer = refuse
        made = await subscribed(system, hooks.url("/hook"), server.port)
        await system.publish(cloud_event("7"))
        await until_so(asked_again)
        off = pb.DisableSubscriptionRequest(id=made.id, sink_revision=made.sink_revision, reason="a test")
        await system.registry.call(system.registry.subscriptions.DisableSubscription, off)
        # A webhook at this sink shows that the worker has heard of the earlier change.
        await system.subscribe(hooks.url("/after"), "after")
        await system.publish(cloud_event("8", "after"))
        await until(lambda: hooks.arrivals[-1].path == "/after")
        going_on.set()
        (found,) = await delivering.until(1, state=State.DELIVERY_STATE_CANCELLED)
        detail = await delivering.delivery(found.id)
    assert [attempt.status for attempt in detail.attempts] == [401]
    assert [hook.path for hook in hooks.arrivals] == ["/hook", "/after"]
    assert len(server.forms) == 2, "a token was fetched for nothing"


async def test_token_calls_of_one_consumer_that_hang_hold_up_nobody_else(system: System, hooks: Receiver) -> None:
    """Another consumer's webhooks and token calls go on, though more calls hang than there are connections."""
    attacker = await system.registry.consumer("attacker")
    async with (
        authority() as hanging,
        authority() as honest,
        system.delivering(HOOKTIDE_DELIVERY_CONNECTIONS_MAX="20") as delivering,
    ):
        hanging.going_on = asyncio.Event()
        for number in range(30):
            await subscribed(system, hooks.url("/never"), hanging.port, secret=f"{number}", owner=attacker)
        await system.publish(cloud_event("1"))
        await until_so(lambda: has_called(hanging, 8))
        mine = [(await system.subscribe(hooks.url("/plain"))).subscription, await subscribed(system, hooks.url("/token"), honest.port)]
        await system.publish(cloud_event("2"))
        for each in mine:
            await delivering.until(1, subscription_id=each.id, state=DELIVERED)
        assert len(hanging.forms) == 8
        assert {hook.path for hook in hooks.arrivals} == {"/plain", "/token"}
        hanging.going_on.set()


async def has_called(server: Authority, times: int) -> bool:
    return len(server.forms) >= times
