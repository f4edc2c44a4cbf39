import asyncio
import threading
from collections.abc import Sequence

import pytest
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.egress.policy import EgressPolicy
from services.runtime.errors import Reason
from services.runtime.settings import SubscriptionSettings
from services.subscription.lookup import LOOKUPS_MAX, Lookups, system_addresses
from tests.subscription.client import SINK, refused, served

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
    refusals = await Lookups(EgressPolicy(), known).refusals([url])
    assert (url in refusals) is is_refused
    assert not any(address in str(refusals) for addresses in ADDRESSES.values() for address in addresses)


async def test_addresses_and_urls_that_are_refused_by_their_text_are_not_looked_up() -> None:
    asked: list[str] = []
    lookups = Lookups(EgressPolicy(), lambda host: asked.append(host) or [])  # type: ignore[func-returns-value]  # append returns None
    assert await lookups.refusals(["https://10.0.0.1/", "https://[2606:4700::1111]/", "http://public.example/", "nonsense"]) == {}
    assert asked == []


async def test_a_name_that_takes_too_long_passes_and_many_of_them_do_not_pile_up() -> None:
    """Those beyond the bound are not even looked up; once the slow ones are done, names are judged again."""
    gate = threading.Event()
    asked: list[str] = []

    def slow(host: str) -> Sequence[str]:
        asked.append(host)
        gate.wait(30)
        return ADDRESSES["private.example"]

    lookups = Lookups(EgressPolicy(), slow, timeout_s=0.2)
    urls = [f"https://{number}.example/" for number in range(1000, 1000 + LOOKUPS_MAX + 5)]
    named = [url.replace("https://", "https://n") for url in urls]
    async with asyncio.timeout(60):
        assert await lookups.refusals(named) == {}
        assert len(asked) == LOOKUPS_MAX
        gate.set()
        while named[0] not in await lookups.refusals(named[:1]):
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
