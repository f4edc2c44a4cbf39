import asyncio
import threading
from collections.abc import Sequence

import pytest
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.egress.policy import EgressPolicy
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from services.runtime.fair_semaphore import Share
from services.subscription.rules.sink_lookup import SinkLookup, system_addresses
from tests.support.system.registry import SINK, refused, served

SHARE = Share(permits=8, owner_permits=2)
ADDRESSES = {
    "public.example": ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    "private.example": ["10.0.0.7"],
    "mixed.example": ["93.184.215.14", "169.254.169.254"],
    "mapped.example": ["64:ff9b::7f00:1"],
}


def known(host: str) -> Sequence[str]:
    if host not in ADDRESSES:
        message = "Name or service not known"
        raise OSError(message)
    return ADDRESSES[host]


@pytest.mark.parametrize(
    ("host", "is_refused"), [("public", False), ("private", True), ("mixed", True), ("mapped", True), ("unknown", False)]
)
async def test_a_name_is_refused_where_any_of_its_addresses_is_forbidden(host: str, is_refused: bool) -> None:  # noqa: FBT001 - a parameter
    url = f"https://{host}.example/hooks"
    refusals = await SinkLookup(EgressPolicy(), SHARE, known).refusals([url], "con")
    assert (url in refusals) is is_refused
    assert not any(address in str(refusals) for addresses in ADDRESSES.values() for address in addresses)


async def test_addresses_and_urls_that_are_refused_by_their_text_are_not_looked_up() -> None:
    asked: list[str] = []
    lookups = SinkLookup(EgressPolicy(), SHARE, lambda host: asked.append(host) or [])  # type: ignore[func-returns-value]  # append returns None
    urls = ["https://10.0.0.1/", "https://[2606:4700::1111]/", "http://public.example/", "nonsense"]
    assert await lookups.refusals(urls, "con") == {}
    assert asked == []


async def test_names_of_one_consumer_that_hang_pass_and_those_of_others_are_judged() -> None:
    """Names beyond the consumer's share are not even looked up; when the slow lookups are done, its names are judged again."""
    gate = threading.Event()
    asked: list[str] = []

    def slow(host: str) -> Sequence[str]:
        asked.append(host)
        if host.startswith("slow"):
            gate.wait(30)
        return ADDRESSES["private.example"]

    lookups = SinkLookup(EgressPolicy(), SHARE, slow, timeout_s=0.5)
    hanging = [f"https://slow{number}.example/" for number in range(100)]
    async with asyncio.timeout(60):
        attack = asyncio.ensure_future(lookups.refusals(hanging, "attacker"))
        while not asked:  # noqa: ASYNC110 - a thread's side
            await asyncio.sleep(0)
        assert list(await lookups.refusals(["https://quick.example/"], "victim")) == ["https://quick.example/"]
        assert await attack == {}
        assert set(asked) == {"slow0.example", "slow1.example", "quick.example"}
        gate.set()
        while hanging[0] not in await lookups.refusals(hanging[:1], "attacker"):
            pass


async def test_the_systems_own_resolver_is_asked() -> None:
    addresses = await asyncio.to_thread(system_addresses, "localhost")
    assert set(addresses) <= {"127.0.0.1", "::1"}
    assert addresses


async def test_a_subscription_whose_names_lead_inwards_is_refused_at_creation_and_update(settings: SubscriptionSettings) -> None:
    async with served(settings, resolve=known) as client:
        owner = await client.consumer()

        async def create(wanted: pb.Subscription) -> pb.CreateSubscriptionResponse:
            return await client.call(
                client.subscriptions.CreateSubscription, pb.CreateSubscriptionRequest(consumer_id=owner, subscription=wanted)
            )

        failure = await refused(create(pb.Subscription(sink="https://mixed.example/hooks")))
        assert (failure.reason, [error.field for error in failure.fields]) == (Reason.SINK_FORBIDDEN, ["subscription.sink"])
        made = (await create(pb.Subscription(sink=SINK))).subscription
        failure = await refused(client.update(owner, pb.Subscription(id=made.id, sink="https://private.example/"), "sink"))
        assert failure.reason is Reason.SINK_FORBIDDEN

        oauth2 = pb.OAuth2Credential(token_url="https://private.example/token", client_id="c", client_secret="s")
        failure = await refused(create(pb.Subscription(sink=SINK, sink_credential=pb.SinkCredential(oauth2=oauth2))))
        assert failure.reason is Reason.INVALID_ARGUMENT
        assert [error.field for error in failure.fields] == ["subscription.sink_credential.oauth2.token_url"]
        oauth2.token_url = "https://public.example/token"
        assert (await create(pb.Subscription(sink=SINK, sink_credential=pb.SinkCredential(oauth2=oauth2)))).subscription.id


async def test_the_operators_denials_and_ports_hold_for_sinks_and_token_urls(settings: SubscriptionSettings) -> None:
    strict = settings.model_copy(update={"sink_deny": ("93.184.215.0/24",), "sink_ports": (443,)})
    async with served(strict, resolve=known) as client:
        owner = await client.consumer()
        for sink in ("https://public.example/hooks", "https://93.184.215.14/", "https://other.example:8443/"):
            request = pb.CreateSubscriptionRequest(consumer_id=owner, subscription=pb.Subscription(sink=sink))
            assert (await refused(client.call(client.subscriptions.CreateSubscription, request))).reason is Reason.SINK_FORBIDDEN
