import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Sequence
from pathlib import Path

import grpc
import pytest
from hooktide.subscription.v1 import access_pb2, catalogue_pb2
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from services.runtime.ids import slot_of
from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from services.runtime.service_process import ServiceProcess
from services.subscription.app import running
from services.subscription.store.changes import BATCH_MAX
from tests.support.system.registry import Client, Seen, Watching, refused, served, until_checkpoint


def replica(items: list[Seen], known: dict[str, pb.Subscription] | None = None) -> dict[str, pb.Subscription]:
    """Return what a watcher knows after some items, and check that they come in order and once each."""
    state = dict(known or {})
    revisions = [item.put.subscription.revision or item.deleted.revision for item in items]
    assert len(set(revisions)) == len(revisions)
    for item in items:
        if item.WhichOneof("item") == "put":
            state[item.put.subscription.id] = item.put.subscription
        else:
            state.pop(item.deleted.id, None)
    return state


async def listed(client: Client) -> dict[str, pb.Subscription]:
    found: dict[str, pb.Subscription] = {}
    token = ""
    while True:
        request = pb.ListSubscriptionsRequest(consumer_id="*", page_size=200, page_token=token)
        answer = await client.call(client.subscriptions.ListSubscriptions, request)
        found |= {subscription.id: subscription for subscription in answer.subscriptions}
        token = answer.next_page_token
        if not token:
            return found


async def until_revision(call: Watching, revision: int, known: dict[str, pb.Subscription]) -> dict[str, pb.Subscription]:
    """Follow until a checkpoint of at least that revision; return what a watcher then knows."""
    while True:
        items, checkpoint = await until_checkpoint(call)
        known = replica(items, known)
        if checkpoint.revision >= revision:
            return known


async def compacted(client: Client, after_revision: int, registry_id: str, change_id: str = "") -> None:
    async with client.watch(after_revision, registry_id, change_id) as stream:
        failure = await refused(stream.read())
    assert failure.reason is Reason.REVISION_COMPACTED


async def test_a_new_registry_has_nothing_to_tell_but_its_first_revision(client: Client) -> None:
    async with client.watch() as stream:
        items, checkpoint = await until_checkpoint(stream)
    assert items == []
    assert checkpoint.revision == 1 == await client.revision()
    assert checkpoint.registry_id


async def test_the_whole_state_comes_first_then_each_change_with_its_checkpoint(client: Client) -> None:
    owner = await client.consumer()
    first, second = [(await client.subscribe(owner, types=["a"])).subscription for _ in range(2)]
    await client.delete(owner, second.id)
    async with client.watch() as stream:
        items, checkpoint = await until_checkpoint(stream)
        assert [item.put.subscription for item in items] == [first]
        assert checkpoint.revision == 4

        third = (await client.subscribe(owner)).subscription
        items, checkpoint = await until_checkpoint(stream)
        assert [item.put.subscription for item in items] == [third]
        assert checkpoint.revision == 5

        changed = await client.update(owner, pb.Subscription(id=first.id, source="/s"), "source")
        items, checkpoint = await until_checkpoint(stream)
        assert [item.put.subscription for item in items] == [changed]

        revision = await client.delete(owner, third.id)
        items, checkpoint = await until_checkpoint(stream)
        assert [item.deleted for item in items] == [pb.DeletedSubscription(id=third.id, revision=revision)]
        assert checkpoint.revision == revision == await client.revision()


async def test_a_watch_of_some_slots_gets_their_changes_and_every_checkpoint(client: Client) -> None:
    owner = await client.consumer()
    made = [(await client.subscribe(owner)).subscription for _ in range(4)]
    mine = slot_of(made[1].id)
    assert mine not in {slot_of(other.id) for other in (made[0], *made[2:])}
    async with client.watch(slots=[mine]) as stream:
        items, checkpoint = await until_checkpoint(stream)
        assert [item.put.subscription for item in items] == [made[1]]
        for number in (0, 1):
            changed = await client.update(owner, pb.Subscription(id=made[number].id, source="/s"), "source")
            items, reached = await until_checkpoint(stream)
            assert [item.put.subscription for item in items] == [changed] * number
            assert reached.revision == changed.revision
        for number in (0, 1):
            revision = await client.delete(owner, made[number].id)
            items, reached = await until_checkpoint(stream)
            assert [item.deleted.id for item in items] == [made[1].id] * number
            assert reached.revision == revision
    async with client.watch(checkpoint.revision, checkpoint.registry_id, slots=[mine]) as stream:
        items, reached = await until_checkpoint(stream)
        assert {item.put.subscription.id or item.deleted.id for item in items} == {made[1].id}
        assert reached.revision == revision


@pytest.mark.parametrize("slots", [[256], [-1], [1, 1]])
async def test_slots_that_are_none_or_stand_twice_are_refused(client: Client, slots: list[int]) -> None:
    async with client.watch(slots=slots) as stream:
        failure = await refused(stream.read())
    assert (failure.reason, failure.fields[0].field) == (Reason.INVALID_ARGUMENT, "slots")
    call = client.subscriptions.AskRevision(metadata=service_metadata(client.token))
    await call.write(pb.AskRevisionRequest(reached_revision=1, slots=slots))
    failure = await refused(call.read())
    assert (failure.reason, failure.fields[0].field) == (Reason.INVALID_ARGUMENT, "slots")
    call.cancel()


async def test_a_watch_resumes_after_any_revision_across_a_restart(settings: SubscriptionSettings) -> None:
    """It gets a checkpoint at once, even if nothing has changed since."""
    async with served(settings) as client:
        owner = await client.consumer()
        made = [(await client.subscribe(owner)).subscription for _ in range(5)]
        await client.delete(owner, made[0].id)
        async with client.watch() as stream:
            _, checkpoint = await until_checkpoint(stream)
    async with served(settings) as client:
        assert await client.revision() == checkpoint.revision == 7
        for after in range(1, 8):
            async with client.watch(after, checkpoint.registry_id) as stream:
                items, reached = await until_checkpoint(stream)
                assert reached == checkpoint
                expected = [subscription.id for subscription in made if subscription.revision > after and subscription.id != made[0].id]
                assert [item.put.subscription.id for item in items if item.HasField("put")] == expected
                assert [item.deleted.id for item in items if item.HasField("deleted")] == ([made[0].id] if after < 7 else [])
                again = (await client.subscribe(owner)).subscription if after == 7 else None
                if again:
                    (item,), _ = await until_checkpoint(stream)
                    assert item.put.subscription == again


async def test_several_changes_of_one_subscription_are_told_as_its_latest_state(client: Client) -> None:
    owner = await client.consumer()
    made = (await client.subscribe(owner)).subscription
    async with client.watch() as stream:
        _, start = await until_checkpoint(stream)
    for number in range(3):
        made = await client.update(owner, pb.Subscription(id=made.id, source=f"/{number}"), "source")
    async with client.watch(start.revision, start.registry_id) as stream:
        items, checkpoint = await until_checkpoint(stream)
    assert [item.put.subscription for item in items] == [made]
    assert checkpoint.revision == made.revision == start.revision + 3


async def test_a_watch_begins_anew_where_it_cannot_be_told_everything(client: Client) -> None:
    owner = await client.consumer()
    await client.subscribe(owner)
    async with client.watch() as stream:
        _, checkpoint = await until_checkpoint(stream)
    await compacted(client, checkpoint.revision + 1, checkpoint.registry_id)
    await compacted(client, checkpoint.revision, "another registry")
    await compacted(client, checkpoint.revision, "")
    await compacted(client, 1 << 62, checkpoint.registry_id)
    async with client.watch(-1, checkpoint.registry_id) as stream:
        failure = await refused(stream.read())
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert [error.field for error in failure.fields] == ["after_revision"]


async def test_only_so_many_changes_are_kept(settings: SubscriptionSettings) -> None:
    """Here the last ten are kept: a resume after the eleventh last is told to begin anew, also after a restart."""
    settings = settings.model_copy(update={"subscription_changes_kept": 10})
    async with served(settings) as client:
        owner = await client.consumer()
        for _ in range(15):
            await client.subscribe(owner)
        assert await client.revision() == 16
        async with client.watch() as stream:
            _, checkpoint = await until_checkpoint(stream)
    async with served(settings) as client:
        await compacted(client, 5, checkpoint.registry_id)
        async with client.watch(6, checkpoint.registry_id) as stream:
            items, reached = await until_checkpoint(stream)
        assert len(items) == 10
        assert reached == checkpoint


async def test_fewer_changes_to_keep_take_effect_write_by_write(settings: SubscriptionSettings) -> None:
    """Each write forgets a bounded number, and a resume stays possible after every change that remains."""
    async with served(settings) as client:
        owner = await client.consumer()
        name = (await client.subscribe(owner)).subscription.id
        for number in range(250):
            await client.update(owner, pb.Subscription(id=name, source=f"/{number}"), "source")
        async with client.watch() as stream:
            _, checkpoint = await until_checkpoint(stream)
    async with served(settings.model_copy(update={"subscription_changes_kept": 10})) as client:
        oldest = []
        for number in range(4):
            last = (await client.update(owner, pb.Subscription(id=name, source=f"/x{number}"), "source")).revision
            oldest.append(await oldest_resumable(client, (1, 101, 201, last - 10), checkpoint.registry_id))
        assert oldest == [101, 201, last - 11, last - 10]


async def oldest_resumable(client: Client, revisions: Sequence[int], registry_id: str) -> int:
    for revision in revisions:
        if await resumable(client, revision, registry_id):
            return revision
    raise AssertionError(revisions)


async def resumable(client: Client, revision: int, registry_id: str, change_id: str = "") -> bool:
    async with client.watch(revision, registry_id, change_id) as stream:
        try:
            await until_checkpoint(stream)
        except grpc.aio.AioRpcError:
            return False
    return True


@pytest.mark.slow
async def test_more_than_a_batch_of_state_and_changes_arrives_whole(client: Client) -> None:
    owner = await client.consumer()
    names: list[str] = []
    for _ in range(0, BATCH_MAX + 20, 40):
        names += [made.subscription.id for made in await asyncio.gather(*(client.subscribe(owner) for _ in range(40)))]
    async with client.watch() as stream:
        items, checkpoint = await until_checkpoint(stream)
    assert [item.put.subscription.id for item in items] == sorted(names)
    assert checkpoint.revision == len(names) + 1
    # The first batch of changes names a subscription that a later batch deletes.
    last = await client.delete(owner, items[0].put.subscription.id)
    async with client.watch(1, checkpoint.registry_id) as stream:
        assert await until_revision(stream, last, {}) == await listed(client)


async def test_watchers_agree_with_the_registry_whatever_happens_while_they_watch(client: Client) -> None:
    """Two watchers watch from the start, one begins and one resumes half-way, while many callers change things."""
    owner = await client.consumer()
    async with contextlib.AsyncExitStack() as stack:
        early = [await stack.enter_async_context(client.watch()) for _ in range(2)]
        known = [replica((await until_checkpoint(stream))[0]) for stream in early]

        async def change(number: int) -> None:
            made = (await client.subscribe(owner)).subscription
            for step in range(4):
                await client.update(owner, pb.Subscription(id=made.id, source=f"/{step}"), "source")
            await client.rotate(pb.RotateSecretRequest(consumer_id=owner, subscription_id=made.id))
            if number % 3 == 0:
                await client.delete(owner, made.id)

        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(change(number))
            while await client.revision() < 60:
                pass
            late = await stack.enter_async_context(client.watch())
            first, middle = await until_checkpoint(late)
            resumed = await stack.enter_async_context(client.watch(middle.revision, middle.registry_id))
        last = await client.revision()
        assert last == 1 + 30 * 6 + 10
        truth = await listed(client)
        assert await until_revision(early[0], last, known[0]) == truth
        assert await until_revision(early[1], last, known[1]) == truth
        assert await until_revision(late, last, replica(first)) == truth
        assert await until_revision(resumed, last, replica(first)) == truth


async def test_what_is_no_subscription_is_no_news_for_a_watch(client: Client) -> None:
    async with client.watch() as stream:
        await until_checkpoint(stream)
        owner = await client.consumer()
        await client.key(access_pb2.ROLE_ADMIN)
        event_type = catalogue_pb2.EventType(name="a")
        await client.call(client.catalogue.PutEventType, catalogue_pb2.PutEventTypeRequest(event_type=event_type))
        assert await client.revision() == 1
        made = (await client.subscribe(owner)).subscription
        (item,), checkpoint = await until_checkpoint(stream)
    assert item.put.subscription == made
    assert checkpoint.revision == 2


async def test_a_stopping_registry_ends_its_watches_at_once(settings: SubscriptionSettings) -> None:
    async with contextlib.AsyncExitStack() as service, asyncio.timeout(10):
        process = ServiceProcess("subscription")
        addresses = await service.enter_async_context(running(settings, process))
        async with open_channel(addresses.listen) as channel:
            client = Client(channel, settings.token(), process, addresses.admin)
            async with client.watch() as following, client.watch() as idle:
                await until_checkpoint(following)
                await until_checkpoint(idle)
                await service.aclose()
                assert (await refused(following.read())).reason is Reason.UNAVAILABLE
                assert (await refused(idle.read())).reason is Reason.UNAVAILABLE


async def test_a_stopping_registry_ends_at_once_the_streams_that_ask_for_its_revision(settings: SubscriptionSettings) -> None:
    async with contextlib.AsyncExitStack() as service, asyncio.timeout(10):
        process = ServiceProcess("subscription")
        addresses = await service.enter_async_context(running(settings, process))
        async with open_channel(addresses.listen) as channel:
            client = Client(channel, settings.token(), process, addresses.admin)
            asking = client.subscriptions.AskRevision(metadata=service_metadata(settings.token()))
            for _ in range(2):
                await asking.write(pb.AskRevisionRequest())
                answer = await asking.read()
                assert isinstance(answer, pb.AskRevisionResponse)
                assert answer.revision == 1
            await service.aclose()
            assert (await refused(asking.read())).reason is Reason.UNAVAILABLE


async def test_a_registry_restored_from_an_older_copy_does_not_pretend_to_know_later_revisions(
    settings: SubscriptionSettings, tmp_path: Path
) -> None:
    async with served(settings) as client:
        owner = await client.consumer()
        await client.subscribe(owner)
    copy = tmp_path / "copy.db"
    shutil.copy(tmp_path / "subscription.db", copy)
    async with served(settings) as client:
        await client.subscribe(owner)
        async with client.watch() as stream:
            _, checkpoint = await until_checkpoint(stream)
    shutil.copy(copy, tmp_path / "subscription.db")
    async with served(settings) as client:
        await compacted(client, checkpoint.revision, checkpoint.registry_id)


@pytest.mark.parametrize("watchers", [20])
async def test_many_snapshots_at_once_take_turns(client: Client, watchers: int) -> None:
    owner = await client.consumer()
    made = {(await client.subscribe(owner)).subscription.id for _ in range(3)}

    async def snapshot() -> set[str]:
        async with client.watch() as stream:
            return {item.put.subscription.id for item in (await until_checkpoint(stream))[0]}

    assert await asyncio.gather(*(snapshot() for _ in range(watchers))) == [made] * watchers


async def test_a_registry_that_was_restored_and_changed_as_often_knows_its_own_changes_only(
    settings: SubscriptionSettings, tmp_path: Path
) -> None:
    """The revisions are the same as before, but the ids of the changes differ."""
    async with served(settings) as client:
        owner = await client.consumer()
        common = await checkpoint_after(client, client.subscribe(owner))
    copy = tmp_path / "copy.db"
    shutil.copy(tmp_path / "subscription.db", copy)
    async with served(settings) as client:
        lost = [await checkpoint_after(client, client.subscribe(owner)) for _ in range(2)]
    shutil.copy(copy, tmp_path / "subscription.db")
    async with served(settings) as client:
        kept = [await checkpoint_after(client, client.subscribe(owner)) for _ in range(2)]
        assert [each.revision for each in kept] == [each.revision for each in lost]
        for point in lost:
            await compacted(client, point.revision, point.registry_id, point.change_id)
        for point in (common, *kept):
            assert await resumable(client, point.revision, point.registry_id, point.change_id)
        await compacted(client, common.revision, common.registry_id, kept[0].change_id)
        # The answer to AskRevision shows the difference too; a watcher that is behind learns it from its watch.
        assert await asked(client, kept[-1]) == await asked(client, lost[0]) == kept[-1].revision
        for point in (lost[-1], pb.Checkpoint(revision=kept[-1].revision + 1)):
            assert (await refused(asked(client, point))).reason is Reason.REVISION_COMPACTED


async def test_an_etag_of_a_change_that_a_restored_registry_does_not_have_never_fits(
    settings: SubscriptionSettings, tmp_path: Path
) -> None:
    """The etag fails although the subscription, or the event type, has changed as often since."""
    wanted = catalogue_pb2.PutEventTypeRequest(event_type=catalogue_pb2.EventType(name="a"))
    async with served(settings) as client:
        owner = await client.consumer()
        made = (await client.subscribe(owner)).subscription
    copy = tmp_path / "copy.db"
    shutil.copy(tmp_path / "subscription.db", copy)
    async with served(settings) as client:
        lost = await client.update(owner, pb.Subscription(id=made.id, source="/lost"), "source")
        lost_type = (await client.call(client.catalogue.PutEventType, wanted)).event_type
    shutil.copy(copy, tmp_path / "subscription.db")
    async with served(settings) as client:
        kept = await client.update(owner, pb.Subscription(id=made.id, source="/kept"), "source")
        assert kept.revision == lost.revision
        change = client.update(owner, pb.Subscription(id=made.id, source="/next"), "source", etag=lost.etag)
        assert (await refused(change)).reason is Reason.ETAG_MISMATCH
        await client.call(client.catalogue.PutEventType, wanted)
        wanted.etag = lost_type.etag
        assert (await refused(client.call(client.catalogue.PutEventType, wanted))).reason is Reason.ETAG_MISMATCH
        await client.update(owner, pb.Subscription(id=made.id, source="/next"), "source", etag=kept.etag)


async def checkpoint_after(client: Client, change: Awaitable[object]) -> pb.Checkpoint:
    """Make a change and return the checkpoint with which a new watch begins."""
    await change
    async with client.watch() as stream:
        _, checkpoint = await until_checkpoint(stream)
    return checkpoint


async def asked(client: Client, point: pb.Checkpoint) -> int:
    """Ask for the revision, as a caller that has reached a checkpoint."""
    call = client.subscriptions.AskRevision(metadata=service_metadata(client.token))
    try:
        await call.write(pb.AskRevisionRequest(reached_revision=point.revision, reached_change_id=point.change_id))
        answer = await call.read()
    finally:
        call.cancel()
    assert isinstance(answer, pb.AskRevisionResponse)
    return answer.revision


async def test_the_id_of_the_last_change_that_is_not_kept_is_kept(settings: SubscriptionSettings) -> None:
    """A watch may resume right behind it, but only by its own id."""
    async with served(settings.model_copy(update={"subscription_changes_kept": 2})) as client:
        owner = await client.consumer()
        async with client.watch() as stream:
            points = [(await until_checkpoint(stream))[1]]
            for _ in range(5):
                await client.subscribe(owner)
                points.append((await until_checkpoint(stream))[1])
        assert len({point.change_id for point in points}) == len(points)
        for number, point in enumerate(points):
            assert await resumable(client, point.revision, point.registry_id, point.change_id) == (number >= 3)
            await compacted(client, point.revision, point.registry_id, points[number - 1].change_id)
