"""Pauses of subscriptions, consumers and the system, as callers and watchers see them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hooktide.subscription.v1 import access_pb2, system_pb2
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from services.runtime.ids import slot_of
from services.runtime.rpc.channel_and_server import service_metadata
from services.subscription.store import changes
from tests.support.clock import MovedClock
from tests.support.system.registry import ADMIN_KEY_ID, SINK, Client, refused, served, until_checkpoint

ACTIVE, PAUSED = pb.SUBSCRIPTION_STATE_ACTIVE, pb.SUBSCRIPTION_STATE_PAUSED
DISABLED, UNVERIFIED = pb.SUBSCRIPTION_STATE_DISABLED, pb.SUBSCRIPTION_STATE_UNVERIFIED
SINCE, UNTIL = "2027-01-15T08:00:00Z", "2027-01-17T08:00:00Z"
WHY = "events accepted since then are kept at least until"
LEASE_MS = 500
NO_CONSUMER = "con_" + "0" * 32


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def client(settings: SubscriptionSettings, clock: MovedClock) -> AsyncIterator[Client]:
    """A client of a registry by whose settings events are kept for two days: the log keeps them for longer, but deliveries expire."""
    hours = {"ingest_retention_hours": 96.0, "delivery_expiry_hours": 48.0}
    async with served(settings.model_copy(update=hours), clock) as connected:
        yield connected


@pytest.fixture
async def required(settings: SubscriptionSettings) -> AsyncIterator[Client]:
    """A client of a registry that requires consent."""
    async with served(settings.model_copy(update={"sink_handshake": "required", "origin": "hooks.example.com"})) as connected:
        yield connected


async def disabled(client: Client, made: pb.Subscription, reason: str = "it answered 410") -> pb.Subscription:
    request = pb.DisableSubscriptionRequest(id=made.id, sink_revision=made.sink_revision, reason=reason)
    return (await client.call(client.subscriptions.DisableSubscription, request)).subscription


async def granted(client: Client, made: pb.Subscription) -> pb.Subscription:
    verification = pb.Verification(state=pb.VERIFICATION_STATE_GRANTED)
    request = pb.ReportVerificationRequest(subscription_id=made.id, sink_revision=made.sink_revision, verification=verification)
    return (await client.call(client.subscriptions.ReportVerification, request)).subscription


async def watched(client: Client) -> tuple[dict[str, pb.WatchedSubscription], pb.Checkpoint]:
    """Return what a new watch sends."""
    async with client.watch() as stream:
        items, checkpoint = await until_checkpoint(stream)
    return {item.put.subscription.id: item.put for item in items}, checkpoint


@pytest.mark.parametrize(("by_operator", "by"), [(False, "its owner"), (True, "the operator")])
async def test_a_pause_says_by_whom_since_when_and_until_when_events_are_kept(
    client: Client, clock: MovedClock, by: str, *, by_operator: bool
) -> None:
    """A second pause changes nothing, and either side may resume."""
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    paused = await client.pause("*" if by_operator else owner, made.id)
    assert (paused.state, paused.state_reason) == (PAUSED, f"paused by {by} since {SINCE}; {WHY} {UNTIL}")
    assert (paused.revision, paused.sink_revision) == (made.revision + 1, made.sink_revision)
    assert paused.etag != made.etag
    clock.time_s += 3600
    assert await client.pause(owner, made.id) == await client.pause("*", made.id) == paused
    resumed = await client.resume("*", made.id)
    assert (resumed.state, resumed.state_reason) == (ACTIVE, "")
    assert await client.resume(owner, made.id) == resumed
    assert await client.revision() == paused.revision + 1


async def test_another_consumers_subscription_is_missing(client: Client) -> None:
    owner, other = await client.consumer(), await client.consumer()
    made = (await client.subscribe(owner)).subscription
    for change in (client.pause, client.resume):
        assert (await refused(change(other, made.id))).reason is Reason.SUBSCRIPTION_NOT_FOUND
        assert (await refused(change(owner, "sub_" + "0" * 32))).reason is Reason.SUBSCRIPTION_NOT_FOUND
        assert [error.field for error in (await refused(change("", ""))).fields] == ["consumer_id", "id"]
    assert await client.get(owner, made.id) == made


async def test_a_pause_outlives_a_change_of_the_subscription_and_a_restart(settings: SubscriptionSettings) -> None:
    async with served(settings) as client:
        owner = await client.consumer()
        paused = await client.pause(owner, (await client.subscribe(owner)).subscription.id)
        changed = await client.update(owner, pb.Subscription(id=paused.id, sink=SINK + "/new"), "sink")
        assert (changed.state, changed.state_reason) == (PAUSED, paused.state_reason)
    async with served(settings) as client:
        assert await client.get(owner, paused.id) == changed
        assert (await client.resume(owner, paused.id)).state == ACTIVE


async def test_a_disabled_subscription_is_not_paused_and_a_resume_enables_it(client: Client) -> None:
    """A report about the sink from before it was enabled again no longer counts."""
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    gone = await disabled(client, made, "it has failed for 5 days")
    assert (gone.state, gone.state_reason) == (DISABLED, "it has failed for 5 days")
    refusal = await refused(client.pause(owner, made.id))
    assert refusal.reason is Reason.STATE_CONFLICT
    assert "resume" in refusal.message
    enabled = await client.resume(owner, made.id)
    assert (enabled.state, enabled.state_reason, enabled.sink_revision) == (ACTIVE, "", enabled.revision)
    request = pb.DisableSubscriptionRequest(id=made.id, sink_revision=made.sink_revision, reason="late")
    assert (await refused(client.call(client.subscriptions.DisableSubscription, request))).reason is Reason.ETAG_MISMATCH
    assert await client.get(owner, made.id) == enabled


async def test_a_paused_subscription_that_was_disabled_is_paused_again_with_a_new_sink(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    paused = await client.pause(owner, made.id)
    await disabled(client, made)
    moved = await client.update(owner, pb.Subscription(id=made.id, sink=SINK + "/new"), "sink")
    assert (moved.state, moved.state_reason) == (PAUSED, paused.state_reason)
    await disabled(client, moved)
    assert (await client.resume(owner, made.id)).state == ACTIVE
    again = await client.update(owner, pb.Subscription(id=made.id, sink=SINK), "sink")
    assert again.state == ACTIVE


async def test_a_subscription_without_consent_is_neither_paused_nor_resumed(required: Client) -> None:
    owner = await required.consumer()
    made = (await required.subscribe(owner)).subscription
    for change in (required.pause, required.resume):
        refusal = await refused(change(owner, made.id))
        assert refusal.reason is Reason.STATE_CONFLICT
        assert "verify the sink" in refusal.message
    assert await required.get(owner, made.id) == made


async def test_a_pause_waits_behind_a_missing_consent(required: Client) -> None:
    """A consent leads back into the pause; if the pause was resumed meanwhile, it leads to active."""
    owner = await required.consumer()
    made = await granted(required, (await required.subscribe(owner)).subscription)
    paused = await required.pause(owner, made.id)
    moved = await required.update(owner, pb.Subscription(id=made.id, sink=SINK + "/new"), "sink")
    assert moved.state == UNVERIFIED
    again = await granted(required, moved)
    assert (again.state, again.state_reason) == (PAUSED, paused.state_reason)
    moved = await required.update(owner, pb.Subscription(id=made.id, sink=SINK), "sink")
    resumed = await required.resume(owner, made.id)
    assert (resumed.state, resumed.state_reason) == (UNVERIFIED, moved.state_reason)
    assert (await granted(required, resumed)).state == ACTIVE


async def test_a_subscription_that_is_enabled_again_needs_a_consent_if_it_had_none(required: Client) -> None:
    owner = await required.consumer()
    without, consented = [(await required.subscribe(owner)).subscription for _ in range(2)]
    consented = await granted(required, consented)
    states = []
    for made in (without, consented):
        await disabled(required, made)
        states.append((await required.resume(owner, made.id)).state)
    assert states == [UNVERIFIED, ACTIVE]


async def test_a_pause_that_no_consent_needs_any_more_holds_on(settings: SubscriptionSettings) -> None:
    """The operator switches sink verification off."""
    async with served(settings.model_copy(update={"sink_handshake": "required", "origin": "hooks.example.com"})) as client:
        owner = await client.consumer()
        made = await granted(client, (await client.subscribe(owner)).subscription)
        await client.pause(owner, made.id)
        assert (await client.update(owner, pb.Subscription(id=made.id, sink=SINK + "/new"), "sink")).state == UNVERIFIED
    async with served(settings) as client:
        assert (await client.get(owner, made.id)).state == PAUSED


async def test_a_watch_tells_of_a_pause_and_of_its_end(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    async with client.watch() as stream:
        await until_checkpoint(stream)
        for change, state in ((client.pause, PAUSED), (client.resume, ACTIVE)):
            changed = await change(owner, made.id)
            (item,), checkpoint = await until_checkpoint(stream)
            assert (item.put.subscription, item.put.subscription.state) == (changed, state)
            assert (checkpoint.revision, checkpoint.system_paused) == (changed.revision, False)


async def test_a_paused_consumer_says_who_paused_it_and_its_subscriptions_say_so_too(client: Client, clock: MovedClock) -> None:
    """Their own states stay, and so do those of another consumer's; a disabled one keeps no events, and says nothing of the pause."""
    owner, other = await client.consumer(), await client.consumer()
    active, own, gone, foreign = [(await client.subscribe(each)).subscription for each in (owner, owner, owner, other)]
    own = await client.pause(owner, own.id)
    await disabled(client, gone)
    revision = await client.revision()

    paused = await client.pause_consumer(owner)

    assert paused.pause.key_id == ADMIN_KEY_ID
    assert (paused.pause.time.ToJsonString(), paused.pause.kept_until_time.ToJsonString()) == (SINCE, UNTIL)
    assert await client.revision() == revision + 1
    clock.time_s += 60
    assert await client.pause_consumer(owner, "key_" + "8" * 32) == paused
    reason = f"its consumer is paused by the operator since {SINCE}; {WHY} {UNTIL}"
    shown = await client.get(owner, active.id)
    assert (shown.state, shown.state_reason, shown.revision) == (ACTIVE, reason, active.revision)
    assert shown.etag != active.etag
    shown = await client.get(owner, own.id)
    assert (shown.state, shown.state_reason) == (PAUSED, f"{own.state_reason}; {reason}")
    assert (await client.get(owner, gone.id)).state_reason == "it answered 410"
    assert await client.get(other, foreign.id) == foreign
    later = (await client.subscribe(owner)).subscription
    assert later.state_reason == reason

    resumed = await client.resume_consumer(owner)
    assert not resumed.HasField("pause")
    assert await client.resume_consumer(owner) == resumed
    assert await client.get(owner, active.id) == active
    assert await client.get(owner, own.id) == own
    assert await client.revision() == revision + 1 + 1 + 1


async def test_a_watch_tells_of_a_consumers_pause_once_however_many_subscriptions_it_has(client: Client) -> None:
    owner = await client.consumer()
    for _ in range(3):
        await client.subscribe(owner)
    async with client.watch() as stream:
        _, checkpoint = await until_checkpoint(stream)
        for change, is_paused in ((client.pause_consumer, True), (client.resume_consumer, False)):
            before = checkpoint
            await change(owner)
            items, checkpoint = await until_checkpoint(stream)
            assert [item.consumer_pause for item in items] == [pb.ConsumerPause(consumer_id=owner, paused=is_paused)]
            assert checkpoint.revision == before.revision + 1
            async with client.watch(before.revision, before.registry_id, before.change_id) as resumed:
                assert await until_checkpoint(resumed) == (items, checkpoint)


async def test_a_watch_tells_of_pauses_before_subscriptions_and_of_resumptions_after_them(client: Client) -> None:
    """The order of the changes does not matter, so no subscription counts as active in between. Each consumer is told of once."""
    resumed, paused, neither = [await client.consumer() for _ in range(3)]
    await client.pause_consumer(resumed)
    async with client.watch() as stream:
        (first,), checkpoint = await until_checkpoint(stream)
        assert first.consumer_pause == pb.ConsumerPause(consumer_id=resumed, paused=True), "a snapshot tells of the pauses that hold"
    await client.resume_consumer(resumed)
    for change in (client.pause_consumer, client.resume_consumer):
        await change(neither)
    made = (await client.subscribe(paused)).subscription.id
    await client.pause_consumer(paused)
    async with client.watch(checkpoint.revision, checkpoint.registry_id, checkpoint.change_id, slots=[slot_of(made) ^ 1]) as stream:
        items, _ = await until_checkpoint(stream)
        assert {item.consumer_pause.consumer_id for item in items} == {resumed, paused, neither}, "whatever the slots"
    async with client.watch(checkpoint.revision, checkpoint.registry_id, checkpoint.change_id) as stream:
        items, _ = await until_checkpoint(stream)
    assert items[0].consumer_pause == pb.ConsumerPause(consumer_id=paused, paused=True)
    assert items[1].put.subscription.id == made
    assert [item.consumer_pause.paused for item in items[2:]] == [False, False]


async def test_a_snapshot_tells_of_more_paused_consumers_than_one_read_returns(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "BATCH_MAX", 2)
    paused = [await client.consumer() for _ in range(5)]
    for consumer in paused:
        await client.pause_consumer(consumer)
    made = (await client.subscribe(await client.consumer())).subscription.id
    async with client.watch() as stream:
        items, _ = await until_checkpoint(stream)
    assert [item.consumer_pause.consumer_id for item in items[:5]] == sorted(paused)
    assert [item.put.subscription.id for item in items[5:]] == [made]


async def test_a_pause_of_no_consumer_or_by_no_key_is_refused(client: Client) -> None:
    owner = await client.consumer()
    for consumer_id, key_id, fields in (("", ADMIN_KEY_ID, ["id"]), (owner, "", ["key_id"]), (owner, "key_1", ["key_id"])):
        assert [error.field for error in (await refused(client.pause_consumer(consumer_id, key_id))).fields] == fields
    assert [error.field for error in (await refused(client.resume_consumer(""))).fields] == ["id"]
    assert [error.field for error in (await refused(client.pause_system(""))).fields] == ["key_id"]
    for call in (client.pause_consumer(NO_CONSUMER), client.resume_consumer(NO_CONSUMER)):
        assert (await refused(call)).reason is Reason.CONSUMER_NOT_FOUND


async def test_a_pause_of_the_system_is_told_with_every_checkpoint(settings: SubscriptionSettings) -> None:
    """Also to a watch that begins or resumes later, and after a restart."""
    async with served(settings) as client, client.watch() as stream:
        owner = await client.consumer()
        _, checkpoint = await until_checkpoint(stream)
        assert not checkpoint.system_paused
        paused = await client.pause_system()
        assert paused.pause.key_id == ADMIN_KEY_ID
        assert await client.pause_system("key_" + "8" * 32) == paused
        items, checkpoint = await until_checkpoint(stream)
        assert (items, checkpoint.system_paused, checkpoint.revision) == ([], True, await client.revision())
        await client.subscribe(owner)
        assert (await until_checkpoint(stream))[1].system_paused
        assert (await client.call(client.system.GetSystem, system_pb2.GetSystemRequest())).system == paused
    async with served(settings) as client:
        _, again = await watched(client)
        assert again.system_paused
        async with client.watch(checkpoint.revision, checkpoint.registry_id, checkpoint.change_id) as resumed:
            assert (await until_checkpoint(resumed))[1].system_paused
        assert await client.resume_system() == await client.resume_system() == system_pb2.System()
        _, after = await watched(client)
        assert (after.system_paused, after.revision) == (False, again.revision + 1)


async def test_nobody_hears_of_a_pause_before_the_holder_of_a_read_lease_knows_it(client: Client) -> None:
    """The answers to the pause and to every read of it wait for the holder's confirmation."""
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    reads = (
        lambda: client.get(owner, made.id),
        lambda: client.call(client.access.GetConsumer, access_pb2.GetConsumerRequest(id=owner)),
        lambda: client.call(client.access.ListConsumers, access_pb2.ListConsumersRequest()),
        lambda: client.call(client.system.GetSystem, system_pb2.GetSystemRequest()),
    )
    for pause in (lambda: client.pause(owner, made.id), lambda: client.pause_consumer(owner), client.pause_system):
        asking = client.subscriptions.AskRevision(metadata=service_metadata(client.token), timeout=30)
        revision = await client.revision()
        question = pb.AskRevisionRequest(reached_revision=revision)
        question.lease.FromMilliseconds(LEASE_MS)
        async with client.watch() as stream:
            await until_checkpoint(stream)
            asked_at = asyncio.get_running_loop().time()
            await asking.write(question)
            answer = await asking.read()
            assert isinstance(answer, pb.AskRevisionResponse)
            assert answer.lease.ToMilliseconds() == LEASE_MS
            pausing = asyncio.ensure_future(pause())
            _, checkpoint = await until_checkpoint(stream)
            answers = [asyncio.ensure_future(read()) for read in reads]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(asyncio.wait((pausing, *answers), return_when=asyncio.FIRST_COMPLETED)), 0.1)
            heard = any(each.done() for each in (pausing, *answers))
            assert not heard or asyncio.get_running_loop().time() - asked_at >= LEASE_MS / 1000
            await asking.write(pb.AskRevisionRequest(reached_revision=checkpoint.revision, confirms=True))
            await asyncio.gather(pausing, *answers)
        asking.cancel()
