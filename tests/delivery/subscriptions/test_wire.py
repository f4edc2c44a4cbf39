"""Wire form: what a running registry tells delivery of a subscription's requests."""

from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.delivery.model import ContentMode, SubscriptionStatus
from services.delivery.request.credentials import AccessToken, Credential, Header, MutualTls, OAuth2, Plain
from services.delivery.request.request_settings import OwnRetryPolicy, RequestSettings
from services.delivery.request.signing_rfc9421 import key_id
from services.delivery.subscriptions.wire import request_settings_of, subscription_of
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from tests.support.pem import KEYS, certificate, private_key
from tests.support.system.registry import SECRET_KEY, SINK, served, until_checkpoint

CERTIFICATE, PRIVATE_KEY = certificate(KEYS["ec"]), private_key(KEYS["ec"])
CREDENTIALS: list[tuple[pb.SinkCredential, Credential]] = [
    (pb.SinkCredential(plain=pb.PlainCredential(identifier="i", secret="s")), Plain("i", "s")),
    (pb.SinkCredential(access_token=pb.AccessTokenCredential(token="t")), AccessToken("t", "Bearer")),
    (pb.SinkCredential(header=pb.HeaderCredential(name="X-Key", value="v")), Header("x-key", "v")),
    (
        pb.SinkCredential(oauth2=pb.OAuth2Credential(token_url="https://id.example/t", client_id="c", client_secret="s", scope="a")),
        OAuth2("https://id.example/t", "c", "s", "a"),
    ),
    (
        pb.SinkCredential(mtls=pb.MutualTlsCredential(certificate=CERTIFICATE, private_key=PRIVATE_KEY)),
        MutualTls(CERTIFICATE, PRIVATE_KEY),
    ),
]


async def settings_of(folder: Path, wanted: pb.Subscription, rate_per_minute: int | None = None) -> RequestSettings:
    """Create a subscription in a registry, let its sink consent, and return the request settings that a watch sends."""
    environ = {
        "HOOKTIDE_DATA_DIR": str(folder),
        "HOOKTIDE_SERVICE_TOKEN": "hts_a-token-for-this-test-only",
        "HOOKTIDE_SECRET_KEY": SECRET_KEY,
        "HOOKTIDE_SUBSCRIPTION_LISTEN": "127.0.0.1:0",
        "HOOKTIDE_SUBSCRIPTION_ADMIN_LISTEN": "127.0.0.1:0",
        "HOOKTIDE_SINK_HANDSHAKE": "best_effort",
        "HOOKTIDE_ORIGIN": "hooks.example.com",
    }
    async with served(read_settings(SubscriptionSettings, environ)) as client:
        request = pb.CreateSubscriptionRequest(consumer_id=await client.consumer(), subscription=wanted)
        made = (await client.call(client.subscriptions.CreateSubscription, request)).subscription
        report = pb.ReportVerificationRequest(
            subscription_id=made.id,
            sink_revision=made.sink_revision,
            verification=pb.Verification(state=pb.VERIFICATION_STATE_GRANTED, rate_per_minute=rate_per_minute),
        )
        await client.call(client.subscriptions.ReportVerification, report)
        async with client.watch() as stream:
            (item,), _ = await until_checkpoint(stream)
    found = request_settings_of(item.put)
    assert found.sink_revision == made.sink_revision
    return found


async def test_what_is_left_open_is_for_the_operator_to_say(tmp_path: Path) -> None:
    found = await settings_of(tmp_path, pb.Subscription(sink=SINK))
    assert len(found.secrets) == 1
    assert replace(found, secrets=(), sink_revision=0) == RequestSettings(
        sink_revision=0,
        content_mode=ContentMode.STRUCTURED,
        secrets=(),
        keys=(),
        message_signature=False,
        headers={},
        credential=None,
        ca_certificates="",
        timeout_s=None,
        rate_per_second=None,
        in_flight_max=None,
        retry=OwnRetryPolicy(delays_s=None, attempts_max=None, final_statuses=frozenset()),
        is_ordered=False,
    )


async def test_all_that_is_wanted_is_there(tmp_path: Path) -> None:
    settings = pb.ProtocolSettings(
        headers={"X-Team": "billing"},
        timeout=Duration(seconds=2, nanos=500_000_000),
        content_mode=pb.CONTENT_MODE_BINARY,
        signatures=[pb.SIGNATURE_SCHEME_V1A],
        http_message_signature=True,
        ca_certificates=CERTIFICATE,
    )
    delays = pb.RetryDelays(delays=[Duration(seconds=5), Duration(nanos=250_000_000)])
    retry = pb.RetryPolicy(delays=delays, attempts_max=2, final_statuses=[404, 400])
    config = pb.SubscriptionConfig(rate_per_second=50, in_flight_max=7, retry=retry, ordering=pb.ORDERING_KEY)
    found = await settings_of(tmp_path, pb.Subscription(sink=SINK, protocol_settings=settings, config=config), rate_per_minute=120)
    (key,) = found.keys
    assert key.key_id == key_id(key.key.public_key().public_bytes_raw())
    assert replace(found, keys=(), sink_revision=0) == RequestSettings(
        sink_revision=0,
        content_mode=ContentMode.BINARY,
        secrets=(),
        keys=(),
        message_signature=True,
        headers={"x-team": "billing"},
        credential=None,
        ca_certificates=CERTIFICATE,
        timeout_s=2.5,
        rate_per_second=2.0,
        in_flight_max=7,
        retry=OwnRetryPolicy(delays_s=(5.0, 0.25), attempts_max=2, final_statuses=frozenset({400, 404})),
        is_ordered=True,
    )


async def test_no_further_attempt_is_told_from_the_operators_schedule(tmp_path: Path) -> None:
    config = pb.SubscriptionConfig(retry=pb.RetryPolicy(delays=pb.RetryDelays()))
    assert (await settings_of(tmp_path, pb.Subscription(sink=SINK, config=config))).retry.delays_s == ()


@pytest.mark.parametrize(("message", "credential"), CREDENTIALS, ids=[type(credential).__name__ for _, credential in CREDENTIALS])
async def test_a_credential_comes_with_its_secret(tmp_path: Path, message: pb.SinkCredential, credential: Credential) -> None:
    assert (await settings_of(tmp_path, pb.Subscription(sink=SINK, sink_credential=message))).credential == credential


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (pb.SUBSCRIPTION_STATE_ACTIVE, SubscriptionStatus.ACTIVE),
        (pb.SUBSCRIPTION_STATE_PAUSED, SubscriptionStatus.PAUSED),
        (pb.SUBSCRIPTION_STATE_DISABLED, SubscriptionStatus.OFF),
        (pb.SUBSCRIPTION_STATE_UNVERIFIED, SubscriptionStatus.OFF),
    ],
)
def test_the_status_of_a_subscription_follows_its_state(state: pb.SubscriptionState.ValueType, status: SubscriptionStatus) -> None:
    assert subscription_of(pb.WatchedSubscription(subscription=pb.Subscription(state=state))).status is status


@pytest.mark.parametrize(
    ("start", "start_ms"),
    [
        (None, None),
        (pb.Start(point=pb.START_POINT_NOW), None),
        (pb.Start(point=pb.START_POINT_BEGINNING), 0),
        (pb.Start(time=Timestamp(seconds=1_700_000_000, nanos=5_000_000)), 1_700_000_000_005),
    ],
)
def test_a_start_is_the_time_of_the_first_event(start: pb.Start | None, start_ms: int | None) -> None:
    watched = pb.WatchedSubscription(subscription=pb.Subscription(config=pb.SubscriptionConfig(start=start)))
    assert subscription_of(watched).start_ms == start_ms
