"""Request settings: limits (`config`) and how requests are made (`protocol_settings`)."""

import math
from typing import Literal

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime.configuration.settings import SubscriptionSettings
from tests.support.clock import MovedClock
from tests.support.pem import KEYS, certificate, private_key
from tests.support.system.registry import SINK, Client, refused, served, until_checkpoint

CONFIG = pb.SubscriptionConfig(
    description="d",
    rate_per_second=0.5,
    in_flight_max=7,
    retry=pb.RetryPolicy(
        delays=pb.RetryDelays(delays=[Duration(seconds=5), Duration(nanos=500_000_000), Duration(seconds=6 * 86400)]),
        attempts_max=4,
        final_statuses=[400, 404, 599],
    ),
    ordering=pb.ORDERING_KEY,
    start=pb.Start(time=Timestamp(seconds=1_700_000_000, nanos=123_000_000)),
)
SETTINGS = pb.ProtocolSettings(
    headers={"x-team": "billing", "x-area": "eu"},
    timeout=Duration(seconds=2, nanos=500_000_000),
    content_mode=pb.CONTENT_MODE_BINARY,
    signatures=[pb.SIGNATURE_SCHEME_V1, pb.SIGNATURE_SCHEME_V1A],
    http_message_signature=True,
    ca_certificates=certificate(KEYS["rsa"]),
)
CONFIG_DEFAULTS = pb.SubscriptionConfig(ordering=pb.ORDERING_NONE, start=pb.Start(point=pb.START_POINT_NOW))
DEFAULTS = pb.ProtocolSettings(content_mode=pb.CONTENT_MODE_STRUCTURED, signatures=[pb.SIGNATURE_SCHEME_V1])


async def created(client: Client, owner: str, wanted: pb.Subscription) -> pb.Subscription:
    request = pb.CreateSubscriptionRequest(consumer_id=owner, subscription=wanted)
    return (await client.call(client.subscriptions.CreateSubscription, request)).subscription


async def full(client: Client, owner: str) -> pb.Subscription:
    return await created(client, owner, pb.Subscription(sink=SINK, config=CONFIG, protocol_settings=SETTINGS))


async def test_what_is_wanted_is_kept_across_a_restart_and_watched(settings: SubscriptionSettings) -> None:
    async with served(settings) as client:
        made = await full(client, await client.consumer())
        assert (made.config, made.protocol_settings) == (CONFIG, SETTINGS)
    async with served(settings) as client, client.watch() as stream:
        (item,), _ = await until_checkpoint(stream)
        assert item.put.subscription == made


async def test_what_is_not_wanted_has_its_default(client: Client) -> None:
    owner = await client.consumer()
    made = await created(client, owner, pb.Subscription(sink=SINK))
    assert (made.config, made.protocol_settings) == (CONFIG_DEFAULTS, DEFAULTS)
    again = await client.update(owner, made, "config", "protocol_settings")
    assert again == made


@pytest.mark.parametrize("parts", [0, 1])
async def test_a_subscription_may_say_that_it_is_not_divided(client: Client, parts: int) -> None:
    owner = await client.consumer()
    made = await created(client, owner, pb.Subscription(sink=SINK, config=pb.SubscriptionConfig(parts=parts)))
    assert made.config == CONFIG_DEFAULTS
    wanted = pb.Subscription(id=made.id, config=pb.SubscriptionConfig(parts=parts))
    assert (await client.update(owner, wanted, "config.parts")).config == CONFIG_DEFAULTS


async def test_no_further_attempt_is_another_wish_than_the_operators_schedule(client: Client) -> None:
    owner = await client.consumer()
    config = pb.SubscriptionConfig(retry=pb.RetryPolicy(delays=pb.RetryDelays()))
    made = await created(client, owner, pb.Subscription(sink=SINK, config=config))
    assert made.config.retry == config.retry
    after = await client.update(owner, pb.Subscription(id=made.id), "config.retry")
    assert not after.config.HasField("retry")


async def test_header_names_are_kept_in_lower_case_and_schemes_once(client: Client) -> None:
    wanted = pb.ProtocolSettings(headers={"X-Team": "A"}, signatures=[pb.SIGNATURE_SCHEME_V1A, pb.SIGNATURE_SCHEME_V1A])
    made = await created(client, await client.consumer(), pb.Subscription(sink=SINK, protocol_settings=wanted))
    assert dict(made.protocol_settings.headers) == {"x-team": "A"}
    assert list(made.protocol_settings.signatures) == [pb.SIGNATURE_SCHEME_V1A]


@pytest.mark.parametrize(
    "path",
    [
        *("config.description", "config.rate_per_second", "config.in_flight_max", "config.retry", "config.ordering"),
        *("protocol_settings.timeout", "protocol_settings.content_mode", "protocol_settings.signatures"),
        *("protocol_settings.http_message_signature", "protocol_settings.ca_certificates", "protocol_settings.headers"),
    ],
)
async def test_a_mask_changes_the_member_that_it_names_and_no_other(client: Client, path: str) -> None:
    owner = await client.consumer()
    made = await full(client, owner)
    after = await client.update(owner, pb.Subscription(id=made.id), path)
    section, _, name = path.partition(".")
    field = name.partition(".")[0]
    before = getattr(made, section)
    inner, default = getattr(after, section), DEFAULTS if section == "protocol_settings" else CONFIG_DEFAULTS
    assert getattr(inner, field) == getattr(default, field)
    for descriptor in inner.DESCRIPTOR.fields:
        if descriptor.name != field:
            assert getattr(inner, descriptor.name) == getattr(before, descriptor.name)
    assert after.revision == made.revision + 1


RETRY_FIELDS: tuple[Literal["delays", "attempts_max", "final_statuses"], ...] = ("delays", "attempts_max", "final_statuses")


@pytest.mark.parametrize("path", RETRY_FIELDS)
async def test_a_mask_changes_one_member_of_the_retry_policy(
    client: Client, path: Literal["delays", "attempts_max", "final_statuses"]
) -> None:
    owner = await client.consumer()
    made = await full(client, owner)
    after = await client.update(owner, pb.Subscription(id=made.id), f"config.retry.{path}")
    expected = pb.RetryPolicy()
    expected.CopyFrom(CONFIG.retry)
    expected.ClearField(path)
    assert after.config.retry == expected
    assert after.config.ordering == CONFIG.ordering


async def test_final_statuses_are_kept_in_order_and_once(client: Client) -> None:
    config = pb.SubscriptionConfig(retry=pb.RetryPolicy(final_statuses=[599, 300, 404, 300]))
    made = await created(client, await client.consumer(), pb.Subscription(sink=SINK, config=config))
    assert list(made.config.retry.final_statuses) == [300, 404, 599]


STARTS = [
    pb.Start(point=pb.START_POINT_NOW),
    pb.Start(point=pb.START_POINT_BEGINNING),
    pb.Start(time=Timestamp()),
    pb.Start(time=Timestamp(seconds=1_700_000_000)),
]


@pytest.mark.parametrize("start", STARTS, ids=str)
async def test_a_start_is_kept_for_good(client: Client, start: pb.Start) -> None:
    """An update that leaves it out or repeats it keeps it; any other start is refused, alone or with the whole section."""
    owner = await client.consumer()
    made = await created(client, owner, pb.Subscription(sink=SINK, config=pb.SubscriptionConfig(start=start)))
    assert made.config.start == start
    for paths in (["config"], ["config.start"]):
        assert (await client.update(owner, pb.Subscription(id=made.id), *paths)).config.start == start
        same = pb.Subscription(id=made.id, config=pb.SubscriptionConfig(start=start))
        assert await client.update(owner, same, *paths) == made
        for other in STARTS:
            if other != start:
                wanted = pb.Subscription(id=made.id, config=pb.SubscriptionConfig(start=other))
                failure = await refused(client.update(owner, wanted, *paths))
                assert [error.field for error in failure.fields] == ["subscription.config.start"]
                assert "create another subscription" in failure.message


@pytest.mark.parametrize(
    "start", [pb.Start(), pb.Start.FromString(bytes((8, 9))), pb.Start(time=Timestamp(seconds=-1)), pb.Start(time=Timestamp(nanos=-1))]
)
async def test_a_start_that_is_none_is_refused(client: Client, start: pb.Start) -> None:
    wanted = pb.Subscription(sink=SINK, config=pb.SubscriptionConfig(start=start))
    failure = await refused(created(client, await client.consumer(), wanted))
    assert [error.field for error in failure.fields] == ["subscription.config.start"]


async def test_a_start_in_the_future_is_refused(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    now = int(clock.now())
    async with served(settings, clock) as client:
        owner = await client.consumer()

        def start(seconds: int) -> pb.Subscription:
            return pb.Subscription(sink=SINK, config=pb.SubscriptionConfig(start=pb.Start(time=Timestamp(seconds=seconds))))

        failure = await refused(created(client, owner, start(now + 3600)))
        assert [error.field for error in failure.fields] == ["subscription.config.start"]
        made = await created(client, owner, start(now - 1))
        clock.time_s -= 7200
        # A clock that was set back does not make a stored start wrong.
        assert (await client.update(owner, pb.Subscription(id=made.id, source="/s"), "source", "config")).source == "/s"


async def test_single_headers_are_put_and_removed_whatever_their_case(client: Client) -> None:
    owner = await client.consumer()
    made = await full(client, owner)
    wanted = pb.Subscription(id=made.id, protocol_settings=pb.ProtocolSettings(headers={"X-Team": "shop", "x-new": "1", "x-ignored": "2"}))
    paths = [f"protocol_settings.headers.{name}" for name in ("x-team", "X-New", "X-AREA", "x-never")]
    after = await client.update(owner, wanted, *paths)
    assert dict(after.protocol_settings.headers) == {"x-team": "shop", "x-new": "1"}
    assert after.protocol_settings.timeout == SETTINGS.timeout


WRONG_CONFIGS = [
    ({"rate_per_second": 0}, "rate_per_second"),
    ({"rate_per_second": -1}, "rate_per_second"),
    ({"rate_per_second": math.nan}, "rate_per_second"),
    ({"rate_per_second": math.inf}, "rate_per_second"),
    ({"rate_per_second": 10_001}, "rate_per_second"),
    ({"in_flight_max": 0}, "in_flight_max"),
    ({"in_flight_max": 1001}, "in_flight_max"),
    ({"retry": pb.RetryPolicy(delays=pb.RetryDelays(delays=[Duration(seconds=1), Duration()]))}, "retry.delays[1]"),
    ({"retry": pb.RetryPolicy(delays=pb.RetryDelays(delays=[Duration(seconds=-5)]))}, "retry.delays[0]"),
    ({"retry": pb.RetryPolicy(delays=pb.RetryDelays(delays=[Duration(seconds=7 * 86400 + 1)]))}, "retry.delays[0]"),
    ({"retry": pb.RetryPolicy(delays=pb.RetryDelays(delays=[Duration(seconds=4 * 86400)] * 2))}, "retry.delays"),
    ({"retry": pb.RetryPolicy(delays=pb.RetryDelays(delays=[Duration(seconds=1)] * 31))}, "retry.delays"),
]
WRONG_CONFIGS += [
    ({"retry": pb.RetryPolicy(attempts_max=0)}, "retry.attempts_max"),
    ({"retry": pb.RetryPolicy(attempts_max=32)}, "retry.attempts_max"),
    ({"retry": pb.RetryPolicy(final_statuses=[400, 299])}, "retry.final_statuses[1]"),
    ({"retry": pb.RetryPolicy(final_statuses=[600])}, "retry.final_statuses[0]"),
    ({"retry": pb.RetryPolicy(final_statuses=[410])}, "retry.final_statuses[0]"),
    ({"retry": pb.RetryPolicy(final_statuses=range(400, 451))}, "retry.final_statuses"),
    ({"ordering": 9}, "ordering"),
    ({"parts": 2}, "parts"),
    ({"parts": -1}, "parts"),
]
WRONG_SETTINGS = [
    ({"timeout": Duration()}, "timeout"),
    ({"timeout": Duration(nanos=999_999_999)}, "timeout"),
    ({"timeout": Duration(seconds=30, nanos=1_000_000)}, "timeout"),
    ({"content_mode": 9}, "content_mode"),
    ({"signatures": [1, 0]}, "signatures[1]"),
    ({"signatures": [7]}, "signatures[0]"),
    ({"headers": {"x-ok": "1", "Webhook-Id": "1"}}, "headers.Webhook-Id"),
    ({"headers": {"x-cut": "a\r\nhost: b"}}, "headers.x-cut"),
    ({"headers": {"authorization": "Bearer x"}}, "headers.authorization"),
    ({"ca_certificates": "none"}, "ca_certificates"),
    ({"ca_certificates": private_key(KEYS["ec"])}, "ca_certificates"),
]


@pytest.mark.parametrize(("members", "field"), WRONG_CONFIGS)
async def test_a_wrong_limit_is_named(client: Client, members: dict[str, object], field: str) -> None:
    owner = await client.consumer()
    wanted = pb.Subscription(sink=SINK, config=pb.SubscriptionConfig(**members))  # type: ignore[arg-type]  # whatever is wrong
    assert [error.field for error in (await refused(created(client, owner, wanted))).fields] == [f"subscription.config.{field}"]
    made = await full(client, owner)
    wanted.id = made.id
    failure = await refused(client.update(owner, wanted, f"config.{field.partition('[')[0]}"))
    assert [error.field for error in failure.fields] == [f"subscription.config.{field}"]


@pytest.mark.parametrize(("members", "field"), WRONG_SETTINGS)
async def test_a_wrong_setting_is_named(client: Client, members: dict[str, object], field: str) -> None:
    owner = await client.consumer()
    wanted = pb.Subscription(sink=SINK, protocol_settings=pb.ProtocolSettings(**members))  # type: ignore[arg-type]  # whatever is wrong
    failure = await refused(created(client, owner, wanted))
    assert [error.field for error in failure.fields] == [f"subscription.protocol_settings.{field}"]
    made = await full(client, owner)
    wanted.id = made.id
    assert (await refused(client.update(owner, wanted, "protocol_settings"))).fields == failure.fields


@pytest.mark.parametrize(
    "path",
    [
        *(
            "config.colour",
            "config.retry.delays.0",
            "config.start.time",
            "config.retry.delays.delays",
            "protocol_settings.colour",
            "protocol_settings.timeout.seconds",
        ),
        *("verification", "state", "sink_revision", "protocol"),
    ],
)
async def test_a_mask_that_names_what_cannot_be_changed_is_refused(client: Client, path: str) -> None:
    owner = await client.consumer()
    made = await full(client, owner)
    failure = await refused(client.update(owner, made, path))
    assert [error.field for error in failure.fields] == ["update_mask.paths[0]"]


@pytest.mark.parametrize("name", ["Host", "", "x.y", "x y", "x/y~z", "webhook-id"])
async def test_a_header_named_by_a_mask_is_judged_like_any_other(client: Client, name: str) -> None:
    """The removal of a header that cannot exist changes nothing."""
    owner = await client.consumer()
    made = await full(client, owner)
    path = f"protocol_settings.headers.{name}"
    wanted = pb.Subscription(id=made.id, protocol_settings=pb.ProtocolSettings(headers={name: "v"}))
    failure = await refused(client.update(owner, wanted, path))
    assert [error.field for error in failure.fields] == [f"subscription.{path}"]
    assert await client.update(owner, pb.Subscription(id=made.id), path) == made
