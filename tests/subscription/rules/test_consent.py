import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator

import pytest
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from services.runtime.service_process import StartError
from services.subscription.store.verifications import BEGUN_MAX
from tests.support.clock import MovedClock
from tests.support.system.registry import SINK, Client, refused, served, until_checkpoint

ACTIVE, UNVERIFIED, DISABLED = pb.SUBSCRIPTION_STATE_ACTIVE, pb.SUBSCRIPTION_STATE_UNVERIFIED, pb.SUBSCRIPTION_STATE_DISABLED
PENDING, GRANTED = pb.VERIFICATION_STATE_PENDING, pb.VERIFICATION_STATE_GRANTED
REFUSED, FAILED = pb.VERIFICATION_STATE_REFUSED, pb.VERIFICATION_STATE_FAILED
DAY_S = 24 * 3600


def handshakes(settings: SubscriptionSettings, handshake: str) -> SubscriptionSettings:
    return settings.model_copy(update={"sink_handshake": handshake, "origin": "hooks.example.com"})


@pytest.fixture
async def required(settings: SubscriptionSettings) -> AsyncIterator[Client]:
    """A client of a registry that requires consent."""
    async with served(handshakes(settings, "required")) as connected:
        yield connected


async def begun(client: Client, owner: str, name: str) -> pb.BeginVerificationResponse:
    request = pb.BeginVerificationRequest(consumer_id=owner, subscription_id=name)
    return await client.call(client.subscriptions.BeginVerification, request)


async def reported(
    client: Client, made: pb.Subscription, state: pb.VerificationState.ValueType, rate: int | None = None, detail: str = ""
) -> pb.Subscription:
    request = pb.ReportVerificationRequest(
        subscription_id=made.id,
        sink_revision=made.sink_revision,
        verification=pb.Verification(state=state, rate_per_minute=rate, detail=detail),
    )
    return (await client.call(client.subscriptions.ReportVerification, request)).subscription


async def confirmed(client: Client, token: str, rate: int | None = None) -> None:
    await client.call(client.subscriptions.ConfirmVerification, pb.ConfirmVerificationRequest(token=token, rate_per_minute=rate))


async def disabled(client: Client, made: pb.Subscription, reason: str = "it answered 410") -> pb.Subscription:
    request = pb.DisableSubscriptionRequest(id=made.id, sink_revision=made.sink_revision, reason=reason)
    return (await client.call(client.subscriptions.DisableSubscription, request)).subscription


async def current(client: Client, made: pb.Subscription) -> pb.Subscription:
    request = pb.GetSubscriptionRequest(consumer_id="*", id=made.id)
    return (await client.call(client.subscriptions.GetSubscription, request)).subscription


async def test_where_consent_is_required_a_subscription_waits_for_it(required: Client) -> None:
    owner = await required.consumer()
    made = (await required.subscribe(owner)).subscription
    assert made.state == UNVERIFIED
    assert "consented" in made.state_reason
    assert not made.HasField("verification")

    after = await reported(required, made, GRANTED, 120)

    assert (after.state, after.state_reason) == (ACTIVE, "")
    assert (after.verification.state, after.verification.rate_per_minute) == (GRANTED, 120)
    assert after.revision == made.revision + 1
    async with required.watch() as stream:
        (item,), _ = await until_checkpoint(stream)
        assert item.put.subscription == after


async def test_a_consent_without_a_rate_sets_no_limit(required: Client) -> None:
    made = (await required.subscribe(await required.consumer())).subscription
    after = await reported(required, made, GRANTED)
    assert not after.verification.HasField("rate_per_minute")


@pytest.mark.parametrize("state", [REFUSED, PENDING, FAILED])
async def test_without_consent_it_goes_on_waiting_and_says_why(required: Client, state: pb.VerificationState.ValueType) -> None:
    made = (await required.subscribe(await required.consumer())).subscription
    after = await reported(required, made, state, detail="the server answered 404")
    assert after.state == UNVERIFIED
    assert after.state_reason.endswith("the server answered 404")
    assert (after.verification.state, after.verification.detail) == (state, "the server answered 404")


async def test_a_consent_is_taken_back_by_a_refusal_and_by_nothing_else(required: Client) -> None:
    made = (await required.subscribe(await required.consumer())).subscription
    await reported(required, made, GRANTED, 120)
    for state in (FAILED, PENDING):
        after = await reported(required, made, state, detail="no answer")
        assert (after.state, after.state_reason) == (ACTIVE, "")
        assert (after.verification.state, after.verification.rate_per_minute, after.verification.detail) == (GRANTED, 120, "no answer")
    after = await reported(required, made, REFUSED, detail="the sink's WebHook-Allowed-Origin is another one")
    assert (after.state, after.verification.state) == (UNVERIFIED, REFUSED)
    assert not after.verification.HasField("rate_per_minute")


async def test_best_effort_asks_and_sends_whatever_the_answer(settings: SubscriptionSettings) -> None:
    async with served(handshakes(settings, "best_effort")) as client:
        made = (await client.subscribe(await client.consumer())).subscription
        assert made.state == ACTIVE
        assert (await begun(client, "*", made.id)).callback_token
        for state in (REFUSED, FAILED, PENDING, GRANTED):
            after = await reported(client, made, state, 60 if state == GRANTED else None)
            assert (after.state, after.verification.state) == (ACTIVE, state)
        assert after.verification.rate_per_minute == 60


async def test_where_handshakes_are_off_none_is_begun(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    assert made.state == ACTIVE
    failure = await refused(begun(client, owner, made.id))
    assert (failure.reason, "operator" in failure.message) == (Reason.STATE_CONFLICT, True)


async def test_a_new_sink_has_to_consent_anew(required: Client) -> None:
    """No earlier or late answer of the old sink counts any more; an update with the same sink changes nothing."""
    owner = await required.consumer()
    made = (await required.subscribe(owner)).subscription
    token = (await begun(required, owner, made.id)).callback_token
    granted = await reported(required, made, GRANTED, 120)
    same = await required.update(owner, pb.Subscription(id=made.id, sink=SINK, source="/s"), "sink", "source")
    assert (same.state, same.sink_revision) == (ACTIVE, granted.sink_revision)

    moved = await required.update(owner, pb.Subscription(id=made.id, sink=f"{SINK}/2"), "sink")

    assert (moved.state, moved.sink_revision) == (UNVERIFIED, moved.revision)
    assert not moved.HasField("verification")
    assert (await refused(reported(required, made, GRANTED))).reason is Reason.ETAG_MISMATCH
    assert (await refused(confirmed(required, token))).reason is Reason.VERIFICATION_NOT_FOUND
    assert await current(required, made) == moved


async def test_a_handshake_begins_with_all_that_a_request_to_the_sink_needs(required: Client) -> None:
    owner = await required.consumer()
    credential = pb.SinkCredential(header=pb.HeaderCredential(name="x-api-key", value="v"))
    wanted = pb.Subscription(sink=SINK, sink_credential=credential)
    request = pb.CreateSubscriptionRequest(consumer_id=owner, subscription=wanted)
    created = await required.call(required.subscriptions.CreateSubscription, request)
    begin = await begun(required, owner, created.subscription.id)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", begin.callback_token)
    assert begin.subscription.subscription == created.subscription
    assert begin.subscription.sink_credential == credential
    assert [secret.secret for secret in begin.subscription.secrets] == [created.secret.secret]
    assert await required.revision() == created.subscription.revision


async def test_a_token_consents_for_its_sink_for_a_day_and_stands_in_no_file(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    async with served(handshakes(settings, "required"), clock) as client:
        owner = await client.consumer()
        first, second = [(await client.subscribe(owner)).subscription for _ in range(2)]
        tokens = [(await begun(client, owner, made.id)).callback_token for made in (first, second)]
        await confirmed(client, tokens[0], 30)
        after = await current(client, first)
        assert (after.state, after.verification.state, after.verification.rate_per_minute) == (ACTIVE, GRANTED, 30)
        assert (await current(client, second)).state == UNVERIFIED

        await confirmed(client, tokens[0], 30)
        assert await current(client, first) == after
        await confirmed(client, tokens[0])
        assert not (await current(client, first)).verification.HasField("rate_per_minute")

        clock.time_s += DAY_S
        assert (await refused(confirmed(client, tokens[1]))).reason is Reason.VERIFICATION_NOT_FOUND
        await begun(client, owner, second.id)
    stored = (settings.data_dir / "subscription.db").read_bytes()
    assert not any(token.encode() in stored for token in tokens)
    with contextlib.closing(sqlite3.connect(settings.data_dir / "subscription.db")) as database:
        assert database.execute("SELECT count(*) FROM callback_tokens").fetchone() == (1,)


@pytest.mark.parametrize("token", ["x", "A" * 43, "A" * 42 + "=", "\u00e9" * 43, "A" * 10_000])
async def test_a_token_that_was_never_given_out_consents_to_nothing(required: Client, token: str) -> None:
    assert (await refused(confirmed(required, token))).reason is Reason.VERIFICATION_NOT_FOUND


async def test_a_refusal_and_a_deletion_end_the_tokens(required: Client) -> None:
    owner = await required.consumer()
    made, gone = [(await required.subscribe(owner)).subscription for _ in range(2)]
    tokens = [(await begun(required, owner, each.id)).callback_token for each in (made, gone)]
    await reported(required, made, REFUSED, detail="no")
    await required.delete(owner, gone.id)
    for token in tokens:
        assert (await refused(confirmed(required, token))).reason is Reason.VERIFICATION_NOT_FOUND
    assert (await current(required, made)).state == UNVERIFIED


async def test_a_sink_is_asked_only_so_often(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    async with served(handshakes(settings, "required"), clock) as client:
        owner = await client.consumer()
        made, other = [(await client.subscribe(owner)).subscription for _ in range(2)]
        for _ in range(BEGUN_MAX):
            await begun(client, owner, made.id)
        failure = await refused(begun(client, owner, made.id))
        assert failure.reason is Reason.OVERLOADED
        assert failure.retry_after_s
        await begun(client, owner, other.id)
        clock.time_s += 3600
        await begun(client, owner, made.id)


async def test_another_consumers_subscription_is_not_there_to_be_verified(required: Client) -> None:
    owner, other = await required.consumer(), await required.consumer()
    made = (await required.subscribe(owner)).subscription
    assert (await refused(begun(required, other, made.id))).reason is Reason.SUBSCRIPTION_NOT_FOUND
    made.id = "sub_none"
    assert (await refused(reported(required, made, GRANTED))).reason is Reason.SUBSCRIPTION_NOT_FOUND
    assert (await refused(disabled(required, made))).reason is Reason.SUBSCRIPTION_NOT_FOUND


async def test_a_wrong_report_names_its_fields(required: Client) -> None:
    made = (await required.subscribe(await required.consumer())).subscription
    failure = await refused(reported(required, made, pb.VERIFICATION_STATE_UNSPECIFIED, 0, "d" * 501))
    assert {error.field for error in failure.fields} == {"verification.state", "verification.rate_per_minute", "verification.detail"}
    failure = await refused(confirmed(required, "", -1))
    assert {error.field for error in failure.fields} == {"token", "rate_per_minute"}
    failure = await refused(disabled(required, made, ""))
    assert [error.field for error in failure.fields] == ["reason"]


async def test_an_endpoint_that_is_gone_disables_the_subscription_as_long_as_it_is_its_sink(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    off = await disabled(client, made)
    assert (off.state, off.state_reason, off.revision) == (DISABLED, "it answered 410", made.revision + 1)
    assert await disabled(client, made, "again") == off

    moved = await client.update(owner, pb.Subscription(id=made.id, sink=f"{SINK}/2"), "sink")

    assert (moved.state, moved.state_reason) == (ACTIVE, "")
    assert (await refused(disabled(client, made))).reason is Reason.ETAG_MISMATCH
    assert await current(client, made) == moved


async def test_a_disabled_subscription_stays_so_whatever_its_sink_says(required: Client) -> None:
    made = (await required.subscribe(await required.consumer())).subscription
    await disabled(required, made)
    for state in (GRANTED, REFUSED):
        after = await reported(required, made, state)
        assert (after.state, after.state_reason, after.verification.state) == (DISABLED, "it answered 410", state)


@pytest.mark.parametrize("handshake", ["off", "best_effort"])
async def test_what_waits_for_consent_goes_on_once_it_is_no_longer_required(settings: SubscriptionSettings, handshake: str) -> None:
    async with served(handshakes(settings, "required")) as client:
        owner = await client.consumer()
        made = [(await client.subscribe(owner)).subscription for _ in range(3)]
    async with served(handshakes(settings, handshake)) as client:
        assert [(await current(client, each)).state for each in made] == [ACTIVE] * 3
        assert await client.revision() == made[-1].revision + 3


async def test_a_handshake_without_a_name_of_ours_is_refused_at_the_start(settings: SubscriptionSettings) -> None:
    with pytest.raises(StartError, match="HOOKTIDE_ORIGIN"):
        async with served(settings.model_copy(update={"sink_handshake": "required"})):
            pass
