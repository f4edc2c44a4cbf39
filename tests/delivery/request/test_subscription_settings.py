"""Subscription settings reach the sink: with a running registry, ingest and delivery, and real receivers."""

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.duration_pb2 import Duration
from hooktide.subscription.v1 import subscription_pb2 as pb
from standardwebhooks import Webhook

from tests.delivery.system import State, System
from tests.support.events import cloud_event
from tests.support.waiting import until, until_so
from tests.support.webhook_receivers.receiver import Arrival, Receiver

DELIVERED, EXHAUSTED, CANCELLED = State.DELIVERY_STATE_DELIVERED, State.DELIVERY_STATE_EXHAUSTED, State.DELIVERY_STATE_CANCELLED
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def subscribed(system: System, sink: str, **wanted: object) -> pb.CreateSubscriptionResponse:
    """Create a subscription with some settings."""
    subscription = pb.Subscription(sink=sink, **wanted)  # type: ignore[arg-type]  # whatever a test wants
    request = pb.CreateSubscriptionRequest(consumer_id=system.consumer_id, subscription=subscription)
    return await system.registry.call(system.registry.subscriptions.CreateSubscription, request)


async def arrived(system: System, hooks: Receiver, **wanted: object) -> Arrival:
    """Publish an event to a subscription with some settings, and return the webhook that arrives."""
    async with system.delivering() as delivering:
        await subscribed(system, hooks.url(), **wanted)
        await system.publish(cloud_event("7", subject="eü 7", traceparent=TRACE, tracestate="a=b"))
        await delivering.until(1, state=DELIVERED)
    (hook,) = hooks.arrivals
    return hook


@pytest.mark.parametrize(
    ("credential", "name", "value"),
    [
        (
            pb.SinkCredential(plain=pb.PlainCredential(identifier="i", secret="p")),
            "authorization",
            "Basic " + base64.b64encode(b"i:p").decode(),
        ),
        (pb.SinkCredential(access_token=pb.AccessTokenCredential(token="t")), "authorization", "Bearer t"),
        (pb.SinkCredential(header=pb.HeaderCredential(name="X-Key", value="v w")), "x-key", "v w"),
    ],
    ids=["plain", "access_token", "header"],
)
async def test_a_credential_arrives(system: System, hooks: Receiver, credential: pb.SinkCredential, name: str, value: str) -> None:
    hook = await arrived(system, hooks, sink_credential=credential)
    assert hook.headers[name] == value
    assert json.loads(hook.body)["id"] == "7"


async def test_headers_of_its_own_arrive_and_ours_stand(system: System, hooks: Receiver) -> None:
    hook = await arrived(system, hooks, protocol_settings=pb.ProtocolSettings(headers={"X-Team": "billing"}))
    assert (hook.headers["x-team"], hook.headers["user-agent"], hook.attempt) == ("billing", "Hooktide/0.1", 1)
    assert (hook.headers["traceparent"], hook.headers["tracestate"]) == (TRACE, "a=b")


@pytest.mark.parametrize("mode", [pb.CONTENT_MODE_STRUCTURED, pb.CONTENT_MODE_BINARY])
async def test_the_official_library_reads_an_event_of_either_mode(system: System, hooks: Receiver, mode: pb.ContentMode.ValueType) -> None:
    hook = await arrived(system, hooks, protocol_settings=pb.ProtocolSettings(content_mode=mode))
    found = from_http_event(HTTPMessage(hook.headers, hook.body))
    assert (found.get_id(), found.get_source(), found.get_type(), found.get_subject()) == ("7", "/shop", "order.created", "eü 7")
    assert found.get_data() == {"id": 7}


async def test_data_only_is_the_emitters_bytes_and_nothing_of_cloudevents(system: System, hooks: Receiver) -> None:
    hook = await arrived(system, hooks, protocol_settings=pb.ProtocolSettings(content_mode=pb.CONTENT_MODE_DATA_ONLY))
    assert (hook.body, hook.headers["content-type"]) == (b'{"id":  7}', "application/json")
    assert not [name for name in hook.headers if name.startswith("ce-")]


async def test_what_has_no_data_and_no_type_is_not_called_a_form(system: System, hooks: Receiver) -> None:
    async with system.delivering() as delivering:
        await subscribed(system, hooks.url(), protocol_settings=pb.ProtocolSettings(content_mode=pb.CONTENT_MODE_BINARY))
        empty = cloud_event("7")
        empty.ClearField("data")
        await system.publish(empty)
        await delivering.until(1, state=DELIVERED)
    (hook,) = hooks.arrivals
    assert (hook.body, hook.headers.get("content-type", "")) == (b"", "")


async def test_a_delivery_keeps_the_mode_that_it_was_routed_with(system: System, hooks: Receiver) -> None:
    """All attempts of a delivery send the same bytes, across a change and a restart."""
    hooks.answer = lambda _hook: 500
    async with system.delivering():
        made = await subscribed(system, hooks.url())
        await system.publish(cloud_event("7"))
        await until(lambda: len(hooks.arrivals) == 2)
    settings = pb.ProtocolSettings(content_mode=pb.CONTENT_MODE_BINARY)
    changed = pb.Subscription(id=made.subscription.id, protocol_settings=settings)
    await system.registry.update(system.consumer_id, changed, "protocol_settings.content_mode")
    hooks.answer = lambda _hook: 200
    async with system.delivering() as delivering:
        await delivering.until(1, state=DELIVERED)
        await system.publish(cloud_event("8"))
        await delivering.until(2, state=DELIVERED)
    *before, after = hooks.arrivals
    assert len({(hook.body, hook.headers["content-type"]) for hook in before}) == 1
    assert (after.headers["ce-id"], "ce-id" in before[-1].headers) == ("8", False)


async def test_both_schemes_verify_before_and_after_a_rotation(system: System, hooks: Receiver) -> None:
    """The registry's public key and the secret suffice to verify; the old ones stay valid during the overlap."""
    schemes = [pb.SIGNATURE_SCHEME_V1, pb.SIGNATURE_SCHEME_V1A]
    async with system.delivering() as delivering:
        made = await subscribed(system, hooks.url(), protocol_settings=pb.ProtocolSettings(signatures=schemes))
        subscription_id, stub = made.subscription.id, system.registry.subscriptions
        wanted = pb.GetSecretsRequest(consumer_id="*", subscription_id=subscription_id)
        await system.publish(cloud_event("1"))
        await delivering.until(1, state=DELIVERED)
        first = await system.registry.call(stub.GetSecrets, wanted)
        for scheme in schemes:
            rotate = pb.RotateSecretRequest(consumer_id="*", subscription_id=subscription_id, scheme=scheme)
            await system.registry.call(stub.RotateSecret, rotate)
        second = await system.registry.call(stub.GetSecrets, wanted)
        await system.publish(cloud_event("2"))
        await delivering.until(2, state=DELIVERED)
    one, two = hooks.arrivals
    assert (len(first.secrets), len(first.keys), len(second.secrets), len(second.keys)) == (1, 1, 2, 2)
    assert [entry.split(",")[0] for entry in two.headers["webhook-signature"].split()] == ["v1", "v1", "v1a", "v1a"]
    for hook, known in ((one, first), (two, second), (two, first)):
        for secret in known.secrets:
            Webhook(secret.secret).verify(hook.body, hook.headers)
        for key in known.keys:
            assert verifies(hook, key.public_key)
    assert not verifies(one, second.keys[0].public_key)


def verifies(hook: Arrival, public_key: str) -> bool:
    """Verify a webhook as a receiver would that follows Standard Webhooks and knows a public key."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    signed = f"{hook.headers['webhook-id']}.{hook.headers['webhook-timestamp']}.".encode() + hook.body
    for entry in hook.headers["webhook-signature"].split():
        scheme, _, signature = entry.partition(",")
        if scheme == "v1a":
            with contextlib.suppress(InvalidSignature):
                key.verify(base64.b64decode(signature), signed)
                return True
    return False


async def test_an_http_message_signature_comes_besides(system: System, hooks: Receiver) -> None:
    hook = await arrived(system, hooks, protocol_settings=pb.ProtocolSettings(http_message_signature=True))
    assert '"content-digest"' in hook.headers["signature-input"]
    assert hook.headers["signature"].startswith("sig1=:")
    assert hook.headers["webhook-signature"].startswith("v1,")


async def test_its_own_delays_decide_how_often_it_is_tried(system: System, hooks: Receiver) -> None:
    hooks.answer = lambda _hook: 500
    own, none = hooks.url("/own"), hooks.url("/none")
    async with system.delivering() as delivering:
        delays = [Duration(nanos=50_000_000), Duration(nanos=400_000_000)]
        await subscribed(system, own, config=pb.SubscriptionConfig(retry=pb.RetryPolicy(delays=pb.RetryDelays(delays=delays))))
        await subscribed(system, none, config=pb.SubscriptionConfig(retry=pb.RetryPolicy(delays=pb.RetryDelays())))
        await system.publish(cloud_event("7"))
        found = await delivering.until(2, state=EXHAUSTED)
        details = [await delivering.delivery(each.id) for each in found]
    assert sorted(detail.attempt_count for detail in details) == [1, 3]
    tried = max(details, key=lambda detail: detail.attempt_count).attempts
    assert tried[2].start_time.ToMilliseconds() - tried[1].start_time.ToMilliseconds() >= 199


async def test_its_own_number_of_attempts_and_final_statuses_end_its_attempts(system: System, hooks: Receiver) -> None:
    hooks.answer = lambda hook: 404 if hook.path == "/final" else 500
    soon = [Duration(nanos=1_000_000)] * 5
    retry = pb.RetryPolicy(delays=pb.RetryDelays(delays=soon), attempts_max=2, final_statuses=[404])
    async with system.delivering() as delivering:
        for path in ("/final", "/other"):
            await subscribed(system, hooks.url(path), config=pb.SubscriptionConfig(retry=retry))
        await system.publish(cloud_event("7"))
        details = [await delivering.delivery(each.id) for each in await delivering.until(2, state=EXHAUSTED)]
    assert sorted([attempt.status for attempt in detail.attempts] for detail in details) == [[404], [500, 500]]


async def test_its_own_time_limit_holds(system: System) -> None:
    """The limit also holds if it is longer than the operator's limit for the first byte."""

    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(1.5 if request.path == "/within" else 60)
        return web.Response()

    async with serving(slow) as url, system.delivering(HOOKTIDE_DELIVERY_FIRST_BYTE_TIMEOUT_SECONDS="0.5") as delivering:
        once = pb.SubscriptionConfig(retry=pb.RetryPolicy(delays=pb.RetryDelays()))
        await subscribed(system, url + "/within", config=once, protocol_settings=pb.ProtocolSettings(timeout=Duration(seconds=15)))
        await subscribed(system, url + "/beyond", config=once, protocol_settings=pb.ProtocolSettings(timeout=Duration(seconds=1)))
        await system.publish(cloud_event("7"))
        await delivering.until(1, state=DELIVERED)
        (late,) = await delivering.until(1, state=EXHAUSTED)
        (attempt,) = (await delivering.delivery(late.id)).attempts
    assert 900 <= attempt.duration.ToMilliseconds() < 10_000


async def test_a_rate_and_a_number_at_once_hold(system: System) -> None:
    """At most two attempts are under way, and sometimes two are; of any eleven attempts the last begins a second after the first."""
    under_way = most = 0
    two = asyncio.Event()

    async def count(_request: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way > 1:
            two.set()
        await two.wait()
        await asyncio.sleep(0.3)
        under_way -= 1
        return web.Response()

    async with serving(count) as url, system.delivering() as delivering:
        await subscribed(system, url, config=pb.SubscriptionConfig(rate_per_second=10, in_flight_max=2))
        await system.publish(*(cloud_event(str(number)) for number in range(15)))
        found = await delivering.until(15, state=DELIVERED)
        attempts = [(await delivering.delivery(each.id)).attempts[0] for each in found]
    assert most == 2
    began_ms = sorted(attempt.start_time.ToMilliseconds() for attempt in attempts)
    assert all(later - earlier >= 990 for earlier, later in zip(began_ms, began_ms[10:], strict=False))


async def test_a_sink_that_is_gone_is_disabled_and_another_one_switches_it_on(system: System, hooks: Receiver) -> None:
    hooks.answer = lambda hook: 410 if hook.path == "/old" else 200
    async with system.delivering() as delivering:
        made = (await subscribed(system, hooks.url("/old"))).subscription
        get = pb.GetSubscriptionRequest(consumer_id="*", id=made.id)

        async def is_disabled() -> bool:
            found = (await system.registry.call(system.registry.subscriptions.GetSubscription, get)).subscription
            return found.state == pb.SUBSCRIPTION_STATE_DISABLED and "410" in found.state_reason

        await system.publish(cloud_event("7"))
        await until_so(is_disabled)
        await delivering.until(1, state=CANCELLED)
        await system.registry.update(system.consumer_id, pb.Subscription(id=made.id, sink=hooks.url("/new")), "sink")
        await system.publish(cloud_event("8"))
        await delivering.until(1, state=DELIVERED)
    assert hooks.arrivals[-1].path == "/new"


async def test_what_a_former_sink_says_of_itself_does_not_count(system: System, hooks: Receiver) -> None:
    """The old sink answers 410 to a request from before the change; the subscription goes on at its new sink."""
    asked, changed = asyncio.Event(), asyncio.Event()

    async def late(_request: web.Request) -> web.Response:
        asked.set()
        await changed.wait()
        return web.Response(status=410)

    async with serving(late) as url, system.delivering() as delivering:
        made = (await subscribed(system, url)).subscription
        await system.publish(cloud_event("7"))
        await asked.wait()
        after = await system.registry.update(system.consumer_id, pb.Subscription(id=made.id, sink=hooks.url()), "sink")
        changed.set()
        (found,) = await delivering.until(1, state=DELIVERED)
        get = pb.GetSubscriptionRequest(consumer_id="*", id=made.id)
        now = (await system.registry.call(system.registry.subscriptions.GetSubscription, get)).subscription
    assert found.attempt_count == 2
    assert now == after


async def test_a_client_certificate_and_a_private_authority_work_together(system: System) -> None:
    """The server verifies for real: if either is missing, nothing is delivered."""
    authority, clients = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    clients.configure_trust(context)
    certificate = clients.issue_cert("client.example")
    chain = "".join(each.bytes().decode() for each in certificate.cert_chain_pems)
    mtls = pb.MutualTlsCredential(certificate=chain, private_key=certificate.private_key_pem.bytes().decode())
    trusting = pb.ProtocolSettings(ca_certificates=authority.cert_pem.bytes().decode())
    once = pb.SubscriptionConfig(retry=pb.RetryPolicy(delays=pb.RetryDelays()))
    subjects: list[object] = []

    async def note(request: web.Request) -> web.Response:
        assert request.transport is not None
        subjects.append(request.transport.get_extra_info("peercert")["subjectAltName"])
        return web.Response()

    async with serving(note, context) as url, system.delivering() as delivering:
        await subscribed(system, url, sink_credential=pb.SinkCredential(mtls=mtls), protocol_settings=trusting, config=once)
        await subscribed(system, url, protocol_settings=trusting, config=once)
        await subscribed(system, url, sink_credential=pb.SinkCredential(mtls=mtls), config=once)
        await system.publish(cloud_event("7"))
        await delivering.until(1, state=DELIVERED)
        await delivering.until(2, state=EXHAUSTED)
    assert subjects == [(("DNS", "client.example"),)]


@contextlib.asynccontextmanager
async def serving(handler: "web._handlers", tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:  # type: ignore[name-defined]  # only its stub has this name
    """Serve every request by a handler; yield the URL."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
