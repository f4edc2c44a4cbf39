"""Registry watch in virtual time: what the replica holds, and which subscriptions the watch tells of."""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from services.delivery.model import SubscriptionStatus
from services.delivery.subscriptions.registry_client import RegistryClient
from services.delivery.subscriptions.registry_watch import RegistryWatch
from services.delivery.subscriptions.replica import Replica
from tests.simulation.registry import DISABLED, PAUSED, RegistryChannel, RegistryOfTests, Wish
from tests.support.virtual_time import VirtualClock, VirtualLoop

CONSUMER = f"con_{0:032x}"
ONE, TWO, THREE = (Wish(f"sub_{number}", CONSUMER) for number in (1, 2, 3))


@dataclass
class Watching:
    """A watch of a registry, and all that it has told of, in order."""

    registry: RegistryOfTests
    replica: Replica = field(default_factory=Replica)
    told: list[str] = field(default_factory=list)
    message_s: float = 0.001
    """How long each of the registry's messages takes."""

    def watch(self, loop: VirtualLoop) -> RegistryWatch:
        """Return the watch."""
        client = RegistryClient(RegistryChannel(self.registry), "token", VirtualClock(loop))
        return RegistryWatch(
            client,
            self.replica,
            self,
            changed=lambda subscription_id: self.told.append(f"changed {subscription_id}"),
            unwanted=lambda subscription_id: self.told.append(f"unwanted {subscription_id}"),
            disabled=lambda subscription, is_news: self.told.append(f"disabled {subscription.id} {is_news}"),
            unverified=lambda subscription_id, _consumer_id: self.told.append(f"unverified {subscription_id}"),
            paused=lambda consumer_id, paused: self.told.append(f"{'paused' if paused else 'resumed'} {consumer_id}".strip()),
        )

    def advanced(self) -> None:
        """See `WatchProgress.advanced`."""
        self.told.append("advanced")

    def lost(self) -> None:
        """See `WatchProgress.lost`."""
        self.told.append("lost")

    async def after(self, *acts: Callable[[], object]) -> list[str]:
        """Return what the watch tells after some acts."""
        self.told.clear()
        for act in acts:
            act()
        await asyncio.sleep(10.0)
        return [each for each in self.told if each != "advanced"]


def watching(scene: Callable[[Watching], Coroutine[Any, Any, None]]) -> None:
    """Play a scene with a watch that has taken its first snapshot of two subscriptions."""

    async def play(loop: VirtualLoop) -> None:
        registry = RegistryOfTests(lambda: asyncio.sleep(watched.message_s), loop)
        watched = Watching(registry)
        registry.put(ONE)
        registry.put(TWO)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(watched.watch(loop).run())
            await asyncio.wait_for(watched.replica.reached(1), 60)
            assert watched.told[:3] == [f"changed {ONE.id}", f"changed {TWO.id}", "advanced"]
            await scene(watched)
            running.cancel()

    with contextlib.closing(VirtualLoop(1)) as loop:
        loop.run_until_complete(play(loop))


def test_each_change_is_told_once_and_held() -> None:
    async def scene(watching: Watching) -> None:
        registry, held = watching.registry, watching.replica.router.by_id
        assert await watching.after(lambda: registry.put(replace(ONE, types=("a",)))) == [f"changed {ONE.id}"]
        assert held[ONE.id].types == ("a",)
        assert await watching.after(lambda: registry.put(replace(TWO, state=PAUSED))) == [f"changed {TWO.id}"]
        assert held[TWO.id].status is SubscriptionStatus.PAUSED
        assert watching.replica.wanted(TWO.id), "its events are kept"
        assert await watching.after(lambda: registry.put(replace(TWO, state=DISABLED))) == [
            f"disabled {TWO.id} True",
            f"unwanted {TWO.id}",
        ]
        assert not watching.replica.wanted(TWO.id)
        assert await watching.after(lambda: registry.delete(ONE.id)) == [f"unwanted {ONE.id}"]
        assert watching.replica.get(ONE.id) is None
        assert watching.replica.revision == registry.revision

    watching(scene)


def test_a_disabling_is_told_once_and_a_snapshot_tells_it_of_what_was_unknown() -> None:
    async def scene(watching: Watching) -> None:
        registry = watching.registry
        registry.put(replace(TWO, state=DISABLED))
        assert "disabled" not in " ".join((await watching.after(lambda: registry.put(replace(TWO, state=DISABLED, types=("a",)))))[2:])
        await watching.after(lambda: registry.set_reachable(reachable=False))
        registry.put(replace(ONE, state=DISABLED))
        registry.put(replace(THREE, state=DISABLED))
        registry.compact()
        told = await watching.after(lambda: registry.set_reachable(reachable=True))
        assert [each for each in told if each.startswith("disabled")] == [f"disabled {ONE.id} True", f"disabled {THREE.id} False"]

    watching(scene)


def test_a_pause_of_the_system_is_told_once_and_held() -> None:
    async def scene(watching: Watching) -> None:
        registry, replica = watching.registry, watching.replica
        for paused, told in ((True, "paused"), (False, "resumed")):
            assert await watching.after(functools.partial(registry.pause_system, paused=paused)) == [told]
            assert replica.system_paused is paused
            assert replica.revision == registry.revision
            assert await watching.after(lambda: registry.put(THREE)) == [f"changed {THREE.id}"]
        registry.pause_system(paused=True)
        registry.compact()
        assert [each for each in await watching.after(registry.restart) if each != "lost"] == ["paused"], "a snapshot tells of it too"

    watching(scene)


def test_a_pause_of_a_consumer_is_told_once_and_held_and_changes_no_subscription() -> None:
    """A subscription is active if its own status says so and its consumer is not paused; one that is made during the pause is not."""

    async def scene(watching: Watching) -> None:
        registry, replica = watching.registry, watching.replica
        owner = ONE.consumer_id
        assert await watching.after(functools.partial(registry.pause_consumer, owner, paused=True)) == [f"paused {owner}"]
        assert (replica.active(ONE.id), replica.is_consumer_paused(owner)) == (None, True)
        before = replica.get(ONE.id)
        assert before is not None
        assert before.status is SubscriptionStatus.ACTIVE
        assert await watching.after(lambda: registry.put(THREE)) == [f"changed {THREE.id}"]
        assert replica.active(THREE.id) is None
        assert await watching.after(functools.partial(registry.pause_consumer, owner, paused=True)) == []
        assert await watching.after(functools.partial(registry.pause_consumer, owner, paused=False)) == [f"resumed {owner}"]
        assert (replica.active(ONE.id), replica.active(THREE.id)) == (before, replica.get(THREE.id))
        assert replica.revision == registry.revision

    watching(scene)


def test_a_snapshot_carries_the_pauses_of_consumers() -> None:
    """Pauses are told before what else is different, and resumptions after it."""

    async def scene(watching: Watching) -> None:
        registry, replica = watching.registry, watching.replica
        await watching.after(functools.partial(registry.pause_consumer, ONE.consumer_id, paused=True))
        await watching.after(lambda: registry.set_reachable(reachable=False))
        registry.pause_consumer(ONE.consumer_id, paused=False)
        registry.pause_consumer("con_other", paused=True)
        registry.put(replace(TWO, types=("a",)))
        registry.compact()
        told = await watching.after(lambda: registry.set_reachable(reachable=True))
        assert [each for each in told if each != "lost"] == ["paused con_other", f"changed {TWO.id}", f"resumed {ONE.consumer_id}"]
        assert replica.paused_consumers == {"con_other"}
        assert replica.active(ONE.id) is not None

    watching(scene)


def test_a_new_snapshot_tells_only_what_is_different() -> None:
    """The registry has forgotten the changes that it made while it could not be reached."""

    async def scene(watching: Watching) -> None:
        registry = watching.registry
        assert set(await watching.after(lambda: registry.set_reachable(reachable=False))) == {"lost"}
        registry.delete(ONE.id)
        registry.put(THREE)
        registry.compact()
        told = await watching.after(lambda: registry.set_reachable(reachable=True))
        assert [each for each in told if each != "lost"] == [f"unwanted {ONE.id}", f"changed {THREE.id}"]
        assert set(watching.replica.router.by_id) == {TWO.id, THREE.id}
        assert watching.replica.revision == registry.revision

    watching(scene)


def test_a_watch_that_was_lost_resumes_with_the_changes_alone() -> None:
    async def scene(watching: Watching) -> None:
        registry = watching.registry
        told = await watching.after(lambda: registry.set_reachable(reachable=False))
        assert set(told) == {"lost"}
        assert 3 < len(told) < 60, "it tries again, and not all the time"
        registry.put(THREE)
        told = await watching.after(lambda: registry.set_reachable(reachable=True))
        assert [each for each in told if each != "lost"] == [f"changed {THREE.id}"]

    watching(scene)


def test_without_the_id_of_its_last_change_a_watch_takes_a_snapshot_instead_of_resuming() -> None:
    async def scene(watching: Watching) -> None:
        registry, replica = watching.registry, watching.replica
        await watching.after(lambda: registry.set_reachable(reachable=False))
        replica.checkpoint = replica.checkpoint._replace(change_id="")
        replica.router.remove(ONE.id)
        told = await watching.after(lambda: registry.set_reachable(reachable=True))
        assert [each for each in told if each != "lost"] == [f"changed {ONE.id}"], "only a snapshot tells of what has not changed"
        assert replica.checkpoint.change_id

    watching(scene)


def test_a_snapshot_that_breaks_off_changes_nothing() -> None:
    """The replica holds the former subscriptions until the new snapshot is complete."""

    async def scene(watching: Watching) -> None:
        registry = watching.registry
        before = dict(watching.replica.router.by_id)
        registry.delete(ONE.id)
        registry.put(THREE)
        registry.compact()
        watching.told.clear()
        watching.message_s = 1.0
        registry.restart()
        # The watch is refused after one message's time and begins a snapshot, whose first item comes two messages later.
        await asyncio.sleep(3.8)
        registry.set_reachable(reachable=False)
        await asyncio.sleep(20.0)
        assert watching.replica.router.by_id == before
        assert set(watching.told) == {"lost"}
        told = await watching.after(lambda: registry.set_reachable(reachable=True))
        assert [each for each in told if each != "lost"] == [f"unwanted {ONE.id}", f"changed {THREE.id}"]
        assert set(watching.replica.router.by_id) == {TWO.id, THREE.id}

    watching(scene)
