import asyncio
from collections.abc import Awaitable

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from services.runtime.ids import new_id, slot_in_turn, slot_of
from services.runtime.paging import PAGE_BYTES_MAX
from tests.support.clock import MovedClock
from tests.support.pem import KEYS, certificate
from tests.support.system.registry import SINK, Client, refused, served

FULL = pb.Subscription(
    id="sub_chosen",
    consumer_id="con_ignored",
    sink=SINK,
    protocol=pb.PROTOCOL_HTTP,
    types=["order.created", "invoice.*", "*", "order.created"],
    source="/shop",
    config=pb.SubscriptionConfig(description="for the shop"),
    state=pb.SUBSCRIPTION_STATE_DISABLED,
    revision=77,
    etag="mine",
)


def creation(consumer_id: str, wanted: pb.Subscription = FULL, secret: str = "", request_id: str = "") -> pb.CreateSubscriptionRequest:
    return pb.CreateSubscriptionRequest(consumer_id=consumer_id, subscription=wanted, secret=secret, request_id=request_id)


async def get(client: Client, consumer_id: str, subscription_id: str) -> pb.Subscription:
    request = pb.GetSubscriptionRequest(consumer_id=consumer_id, id=subscription_id)
    return (await client.call(client.subscriptions.GetSubscription, request)).subscription


async def page(client: Client, consumer_id: str, size: int = 0, token: str = "") -> pb.ListSubscriptionsResponse:
    request = pb.ListSubscriptionsRequest(consumer_id=consumer_id, page_size=size, page_token=token)
    return await client.call(client.subscriptions.ListSubscriptions, request)


async def test_subscriptions_get_the_slots_of_their_turns_also_if_they_are_created_at_once(client: Client) -> None:
    """A creation that is refused takes no turn, and a repeated one has the id of the first. Each consumer has its own turns."""
    owners = [await client.consumer() for _ in range(2)]
    made = await asyncio.gather(*(client.subscribe(owners[number % 2]) for number in range(16)))
    await refused(client.subscribe(owners[0], sink="ftp://consumer.example/"))
    twice = [await client.call(client.subscriptions.CreateSubscription, creation(owners[0], request_id="r")) for _ in range(2)]
    made.append(await client.subscribe(owners[0]))

    assert twice[0] == twice[1]
    for owner in owners:
        slots = [slot_of(each.subscription.id) for each in (*made, twice[0]) if each.subscription.consumer_id == owner]
        assert sorted(slots) == sorted(slot_in_turn(owner, turn) for turn in range(len(slots)))


async def test_what_is_created_is_stored_as_asked_with_id_secret_and_state_of_the_servers_making(client: Client) -> None:
    """Read-only fields of the request are ignored, and repeated types are kept once."""
    owner = await client.consumer()

    answer = await client.call(client.subscriptions.CreateSubscription, creation(owner))

    made = answer.subscription
    assert made.id.startswith("sub_")
    assert made.id != FULL.id
    assert (made.consumer_id, made.sink, made.protocol, made.source) == (owner, SINK, pb.PROTOCOL_HTTP, "/shop")
    assert list(made.types) == ["order.created", "invoice.*", "*"]
    assert made.config.description == "for the shop"
    assert made.state == pb.SUBSCRIPTION_STATE_ACTIVE
    assert made.state_reason == ""
    assert made.revision == 2 == await client.revision()
    assert made.etag not in {"", "mine"}
    assert made.create_time == made.update_time != Timestamp()
    assert answer.secret.secret.startswith("whsec_")
    assert not answer.secret.HasField("expire_time")
    assert await get(client, owner, made.id) == made == await get(client, "*", made.id)


async def test_a_protocol_left_out_is_http(client: Client) -> None:
    created = await client.subscribe(await client.consumer())
    assert created.subscription.protocol == pb.PROTOCOL_HTTP


async def test_every_wrong_field_is_named_at_once(client: Client) -> None:
    wanted = pb.Subscription(
        sink="",
        types=["order.created", "*.order", "a\x85b", "a" * 257, "*"],
        source="line\nbreak",
        config=pb.SubscriptionConfig(description="d" * 1001),
    )
    wanted.protocol = 9  # type: ignore[assignment]  # a number from a newer contract
    failure = await refused(
        client.call(client.subscriptions.CreateSubscription, creation("", wanted, secret="whsec_AAAA", request_id="r" * 301))
    )
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert {field.field for field in failure.fields} == {
        "consumer_id",
        "subscription.sink",
        "subscription.protocol",
        "subscription.types[1]",
        "subscription.types[2]",
        "subscription.types[3]",
        "subscription.source",
        "subscription.config.description",
        "secret",
        "request_id",
    }
    assert await client.revision() == 1


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        ("subscription.types", pb.Subscription(sink=SINK, types=[f"t{number}" for number in range(101)])),
        ("subscription.source", pb.Subscription(sink=SINK, source="s" * 1025)),
        ("subscription.sink", pb.Subscription(sink="https://consumer.example/" + "p" * 2048)),
        ("subscription.types[0]", pb.Subscription(sink=SINK, types=[""])),
        ("subscription.types[0]", pb.Subscription(sink=SINK, types=["order.*.created"])),
        ("subscription.types[0]", pb.Subscription(sink=SINK, types=["order.**"])),
        ("subscription.types[0]", pb.Subscription(sink=SINK, types=["ü" * 129])),
        ("subscription.types[0]", pb.Subscription(sink=SINK, types=[".*"])),
        ("subscription.types[0]", pb.Subscription(sink=SINK, types=["order\n"])),
    ],
)
async def test_a_field_beyond_its_limits_is_refused(client: Client, field: str, wanted: pb.Subscription) -> None:
    failure = await refused(client.call(client.subscriptions.CreateSubscription, creation(await client.consumer(), wanted)))
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert [error.field for error in failure.fields] == [field]


async def test_values_at_their_limits_are_taken(client: Client) -> None:
    wanted = pb.Subscription(
        sink="https://consumer.example/" + "p" * (2048 - 25),
        types=[f"{number:03}" + "t" * 253 for number in range(100)],
        source="ü" * 1024,
        config=pb.SubscriptionConfig(description="ü" * 1000),
    )
    made = (await client.call(client.subscriptions.CreateSubscription, creation(await client.consumer(), wanted))).subscription
    assert (list(made.types), made.source) == (list(wanted.types), wanted.source)


@pytest.mark.parametrize(
    "sink", ["http://consumer.example/", "https://127.0.0.1/", "https://[::1]/", "ftp://consumer.example/", "nonsense"]
)
async def test_a_sink_that_may_not_be_called_has_a_reason_of_its_own(client: Client, sink: str) -> None:
    owner = await client.consumer()
    failure = await refused(client.subscribe(owner, sink))
    assert failure.reason is Reason.SINK_FORBIDDEN
    assert [error.field for error in failure.fields] == ["subscription.sink"]

    created = (await client.subscribe(owner)).subscription
    failure = await refused(client.update(owner, pb.Subscription(id=created.id, sink=sink), "sink"))
    assert failure.reason is Reason.SINK_FORBIDDEN
    assert (await get(client, owner, created.id)).sink == SINK


async def test_the_operator_may_allow_sinks(settings: SubscriptionSettings) -> None:
    async with served(settings.model_copy(update={"sink_allow": ("http", "127.0.0.0/8")})) as client:
        assert (await client.subscribe(await client.consumer(), "http://127.0.0.1:8000/hook")).subscription.sink


@pytest.mark.parametrize("owner", ["con_01a20c749fc2758aaca48e2b5180c201", "someone"])
async def test_a_subscription_needs_an_existing_owner(client: Client, owner: str) -> None:
    assert (await refused(client.subscribe(owner))).reason is Reason.CONSUMER_NOT_FOUND


async def test_a_subscription_cannot_belong_to_every_consumer(client: Client) -> None:
    assert [error.field for error in (await refused(client.subscribe("*"))).fields] == ["consumer_id"]


async def test_a_list_goes_on_where_the_page_before_ended(client: Client) -> None:
    """A page holds a consumer's own subscriptions, oldest first; an administrator's pages hold all."""
    ours, theirs = await client.consumer("A"), await client.consumer("B")
    made = [(await client.subscribe(owner)).subscription.id for owner in (ours, theirs, ours, ours, theirs, ours, ours)]

    async def listed(consumer_id: str, size: int) -> list[list[str]]:
        pages, token = [], ""
        while True:
            answer = await page(client, consumer_id, size, token)
            pages.append([subscription.id for subscription in answer.subscriptions])
            token = answer.next_page_token
            if not token:
                return pages

    mine = [made[index] for index in (0, 2, 3, 5, 6)]
    assert await listed(ours, 2) == [mine[:2], mine[2:4], mine[4:]]
    assert await listed(ours, 5) == [mine]
    assert await listed("*", 0) == [made]
    assert await listed(new_id("con"), 0) == [[]]


async def test_a_page_of_large_subscriptions_is_cut_to_what_fits_into_a_message(client: Client) -> None:
    """The next page begins with the first subscription that did not fit; none is lost, none comes twice."""
    owner = await client.consumer()
    large = pb.Subscription(sink=SINK, protocol_settings=pb.ProtocolSettings(ca_certificates=certificate(KEYS["rsa"]) * 50))
    made = [(await client.call(client.subscriptions.CreateSubscription, creation(owner, large))).subscription.id for _ in range(45)]
    first = await page(client, owner, size=200)
    assert PAGE_BYTES_MAX * 0.9 < first.ByteSize() <= PAGE_BYTES_MAX * 1.01
    second = await page(client, owner, size=200, token=first.next_page_token)
    assert [subscription.id for subscription in (*first.subscriptions, *second.subscriptions)] == made
    assert second.next_page_token == ""


async def test_a_page_token_of_another_list_is_refused(client: Client) -> None:
    ours, theirs = await client.consumer("A"), await client.consumer("B")
    for _ in range(2):
        await client.subscribe(ours)
    token = (await page(client, ours, 1)).next_page_token
    assert token
    for consumer_id, wrong in ((theirs, token), ("*", token), (ours, token[:-1]), (ours, "nonsense"), (ours, "💥")):
        assert (await refused(page(client, consumer_id, 1, wrong))).reason is Reason.PAGE_TOKEN_INVALID


async def test_an_update_changes_the_masked_fields_and_no_others(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    async with served(settings, clock) as client:
        owner = await client.consumer()
        made = (await client.call(client.subscriptions.CreateSubscription, creation(owner))).subscription
        clock.time_s += 60
        wanted = pb.Subscription(id=made.id, sink="https://other.example/", types=["a", "a"], source="/else")
        wanted.config.description = "new"

        changed = await client.update(owner, wanted, "sink", "types")

        assert (changed.sink, list(changed.types)) == ("https://other.example/", ["a"])
        assert (changed.source, changed.config.description) == ("/shop", "for the shop")
        assert changed.revision == made.revision + 1 == await client.revision()
        assert changed.etag != made.etag
        assert changed.create_time == made.create_time
        assert changed.update_time.seconds == made.update_time.seconds + 60
        assert await get(client, owner, made.id) == changed

        changed = await client.update("*", wanted, "config.description", "source")
        assert (changed.source, changed.config.description) == ("/else", "new")
        assert (await client.update(owner, pb.Subscription(id=made.id), "config", "types", "source")).config.description == ""


async def test_an_update_that_changes_nothing_is_no_change(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    assert await client.update(owner, pb.Subscription(id=made.id, sink=SINK), "sink") == made
    assert await client.revision() == made.revision


@pytest.mark.parametrize(
    ("paths", "field"),
    [
        ((), "update_mask"),
        (("state",), "update_mask.paths[0]"),
        (("sink", "config.nothing"), "update_mask.paths[1]"),
        (("*",), "update_mask.paths[0]"),
        (("subscription.sink",), "update_mask.paths[0]"),
    ],
)
async def test_a_mask_names_known_fields_and_at_least_one(client: Client, paths: tuple[str, ...], field: str) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    failure = await refused(client.update(owner, pb.Subscription(id=made.id, sink=SINK), *paths))
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert [error.field for error in failure.fields] == [field]


async def test_an_update_judges_the_masked_fields_alone(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    wrong = pb.Subscription(id=made.id, source="\x00", types=["!"])
    assert [error.field for error in (await refused(client.update(owner, wrong, "source"))).fields] == ["subscription.source"]
    assert [error.field for error in (await refused(client.update(owner, wrong, "sink"))).fields] == ["subscription.sink"]
    assert (await client.update(owner, wrong, "config")).revision == made.revision


async def test_an_etag_that_is_no_longer_current_stops_update_and_delete(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    wanted = pb.Subscription(id=made.id, source="/a")
    changed = await client.update(owner, wanted, "source", etag=made.etag)

    wanted.source = "/b"
    assert (await refused(client.update(owner, wanted, "source", etag=made.etag))).reason is Reason.ETAG_MISMATCH
    stale = pb.DeleteSubscriptionRequest(consumer_id=owner, id=made.id, etag=made.etag)
    assert (await refused(client.call(client.subscriptions.DeleteSubscription, stale))).reason is Reason.ETAG_MISMATCH
    assert await get(client, owner, made.id) == changed

    current = pb.DeleteSubscriptionRequest(consumer_id=owner, id=made.id, etag=changed.etag)
    assert (await client.call(client.subscriptions.DeleteSubscription, current)).revision == changed.revision + 1


async def test_a_deleted_subscription_is_gone_and_a_second_time_not_found(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    assert await client.delete(owner, made.id) == 3 == await client.revision()
    assert (await refused(client.delete(owner, made.id))).reason is Reason.SUBSCRIPTION_NOT_FOUND
    assert (await refused(get(client, owner, made.id))).reason is Reason.SUBSCRIPTION_NOT_FOUND
    assert (await refused(client.secrets(owner, made.id))).reason is Reason.SUBSCRIPTION_NOT_FOUND
    assert not (await page(client, owner)).subscriptions


async def test_another_consumers_subscription_is_answered_as_a_missing_one(client: Client) -> None:
    """Every call hides it, with any etag, mask or request id, and changes nothing."""
    ours, theirs = await client.consumer("A"), await client.consumer("B")
    made = (await client.subscribe(ours)).subscription
    revision = await client.revision()
    service = client.subscriptions
    malformed = {"con_nobody", "nonsense"}
    for scope in (theirs, new_id("con"), *malformed):
        answers = []
        for target in (made.id, "sub_01a20c749fc672aabfc57f04a7f1e601"):
            changed = pb.Subscription(id=target, source="/x")
            deletion = pb.DeleteSubscriptionRequest(consumer_id=scope, id=target, etag="stale")
            rotation = pb.RotateSecretRequest(consumer_id=scope, subscription_id=target, request_id="r")
            failures = [
                await refused(get(client, scope, target)),
                await refused(client.update(scope, changed, "source")),
                await refused(client.update(scope, changed, "source", etag="stale")),
                await refused(client.delete(scope, target)),
                await refused(client.call(service.DeleteSubscription, deletion)),
                await refused(client.secrets(scope, target)),
                await refused(client.rotate(rotation)),
            ]
            expected = Reason.INVALID_ARGUMENT if scope in malformed else Reason.SUBSCRIPTION_NOT_FOUND
            assert {failure.reason for failure in failures} == {expected}
            answers.append([failure.message for failure in failures])
        assert answers[0] == answers[1]
        if scope in malformed:
            assert (await refused(page(client, scope))).reason is Reason.INVALID_ARGUMENT
        else:
            assert not (await page(client, scope)).subscriptions
    assert await get(client, ours, made.id) == made
    assert await client.revision() == revision


async def test_every_call_says_for_which_consumer_it_acts(client: Client) -> None:
    made = (await client.subscribe(await client.consumer())).subscription
    calls: list[Awaitable[object]] = [
        get(client, "", made.id),
        page(client, ""),
        client.update("", pb.Subscription(id=made.id), "source"),
        client.delete("", made.id),
        client.secrets("", made.id),
        client.rotate(pb.RotateSecretRequest(subscription_id=made.id)),
        client.subscribe(""),
    ]
    for call in calls:
        failure = await refused(call)
        assert failure.reason is Reason.INVALID_ARGUMENT
        assert [error.field for error in failure.fields] == ["consumer_id"]


async def test_a_call_that_names_no_subscription_is_told_so(client: Client) -> None:
    calls: dict[str, list[Awaitable[object]]] = {
        "id": [get(client, "*", ""), client.delete("*", "")],
        "subscription.id": [client.update("*", pb.Subscription(), "source")],
        "subscription_id": [client.secrets("*", ""), client.rotate(pb.RotateSecretRequest(consumer_id="*"))],
    }
    for field, named in calls.items():
        for call in named:
            assert [error.field for error in (await refused(call)).fields] == [field]
