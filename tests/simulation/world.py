"""World: a seeded world of events, changing subscriptions, faulty endpoints, a full disk and crashes, and checks of its invariants.

The worker and its ledger are the real ones; the registry, the event log and the endpoints are in memory.
"""

import asyncio
import contextlib
import math
import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace

from services.delivery.ledger.protocol import Ledger, recorded_position
from services.delivery.ledger.rows import OpenRow
from services.delivery.model import State, delivery_id
from services.delivery.request.sink_fingerprint import sink_fingerprint
from services.delivery.subscriptions.freshness import GAP_MAX_S
from services.delivery.subscriptions.registry_client import RegistryClient
from services.delivery.worker.backpressure import LIMIT_MAX, LIMIT_MIN, Backpressure
from services.delivery.worker.past_starts import RUNNING
from services.delivery.worker.worker import Peers, Worker
from services.eventlog.filtered_read import RECORDS_MAX
from services.eventlog.record import Record
from services.runtime.clock import unix_ms
from services.runtime.configuration.settings import DeliverySettings
from tests.delivery.ledger.stores import LedgerStore
from tests.simulation.endpoints import Endpoints, Key, TransportOfTests
from tests.simulation.event_log import MemoryEventLog, new_event, position_in, time_in
from tests.simulation.invariants import Published, Version, check_phases, note_owed
from tests.simulation.key_invariants import OrderOfKeys
from tests.simulation.notices import PublishedNotices
from tests.simulation.registry import ACTIVE, DISABLED, PAUSED, Copy, RegistryChannel, RegistryOfTests, Wish
from tests.simulation.tiny_settings import DELAYS_S
from tests.support.events import cloud_event
from tests.support.virtual_time import VirtualClock, VirtualLoop

TYPES = ("order.created", "order.paid", "invoice.sent", "order")
PATTERNS = (("order.*",), ("order.*",), ("order.created", "invoice.*"), (), ("*",), ("order", "order.paid"), ("nothing.*",))
_ONE, _KEY = {"subject": "one"}, {"partitionkey": "three"}
_ATTRIBUTES: tuple[dict[str, str], ...] = ({}, _ONE, {"subject": "two"}, _KEY, _KEY | _ONE)
CONSUMERS = tuple(f"con_{number:032x}" for number in range(3))
# The longest time that a worker may need to hear of a change while its watch works.
_HEARS_WITHIN_S = 2.0
_TOLD_WITHIN_S = 1.0
# After a change of sink, rows must stop waiting for the former sink's due times within this time. The watch may be away for part of it.
_FORGETS_WITHIN_S = 8.0
_ORDERED_SHARE = 0.35
# The longest time after which a worker has stored a step of the wall clock; if it ends sooner, its successor cannot know of the step.
_LOOKS_WITHIN_S = 1.5


@dataclass
class Running:
    """A running worker."""

    worker: Worker
    transport: TransportOfTests
    ledger: Ledger
    task: asyncio.Task[None]
    stack: contextlib.AsyncExitStack


@dataclass
class World:
    """The whole simulated world, made from a seed."""

    loop: VirtualLoop
    chance: random.Random
    settings: DeliverySettings
    store: LedgerStore
    routed_min: int = 2
    routed_max: int = 6
    """How many deliveries may be routed and not recorded: so few that routing waits all the time, and all else happens meanwhile."""
    many_behind: int = 2
    """So many lanes that go behind together leave the routing index at once."""
    page_records: int = 2
    """How many records of the log are read at once for a lane that is behind."""
    published: list[Published] = field(default_factory=list)
    versions: dict[str, list[Version]] = field(default_factory=dict)
    finished: dict[bytes, int] = field(default_factory=dict)
    moved_at: dict[str, float] = field(default_factory=dict)
    """When the sink of a subscription last changed."""
    crashes: int = 0
    subscriptions_made: int = 0
    disk_is_full: bool = False
    checks: int = 0
    subscription_id: Callable[[int], str] = "sub_{:032x}".format
    """Returns the id of the subscription with a number, counted from 1."""
    worker_slots: Collection[int] | None = None
    """The slots of the worker that starts next; None: all."""

    def __post_init__(self) -> None:
        self.clock = VirtualClock(self.loop)
        self.registry = RegistryOfTests(self.pause, self.loop)
        self.log = MemoryEventLog(self.pause)
        self.endpoints = Endpoints(
            self.chance,
            DELAYS_S,
            recorded=self._is_recorded,
            unrecorded=self._is_unrecorded,
            silenced=self._is_silenced,
            unproven=lambda: self.registry.freezes_proven < self.registry.freezes,
            elsewhere=self._is_elsewhere,
            moved_by=self._moved_by,
            overtakes=self._overtakes,
        )
        self.order = OrderOfKeys(self.published, self.endpoints.sent)
        self.head_at_start = 0
        self.running: Running | None = None
        self.started_at = 0.0
        self.killed = asyncio.Event()
        """Set while the worker is killed and has no successor."""
        self.registry_back_at = 0.0
        self.clock_forward_at = self.looked_at = -math.inf
        """When the wall clock stepped forward last, and up to when a worker has certainly stored its steps."""
        self.copy: Copy | None = None
        self.paused_at: dict[str, float] = {}
        """When each consumer was paused last."""
        self.after_trim: Callable[[], None] = lambda: None
        self.notices = PublishedNotices(self.pause)
        self.telling: list[asyncio.Task[None]] = []
        """The calls of users under way, which end by themselves."""

    async def pause(self) -> None:
        """Take as long as a network does."""
        rare = 30.0 if self.chance.random() < 0.1 else 1.0
        await asyncio.sleep(rare * self.chance.expovariate(1000))

    # The worker

    def route_freely(self) -> None:
        """Let routing be as far ahead as a real service's may be, for scenarios with many routed deliveries; call it before `start`."""
        self.routed_min, self.routed_max, self.page_records = LIMIT_MIN, LIMIT_MAX, RECORDS_MAX

    async def start(self) -> None:
        """Start a worker on the ledger as it is."""
        stack = contextlib.AsyncExitStack()
        ledger = await stack.enter_async_context(self.store.open())
        transport = TransportOfTests(self.endpoints)
        channel, token = RegistryChannel(self.registry, self.worker_slots), "t" * 32
        registry = RegistryClient(channel, token, self.clock)
        backpressure = Backpressure(self.routed_min, self.routed_max)
        peers = Peers(self.log, registry, self.notices)
        worker = Worker(
            self.settings, ledger, transport, peers, self.clock, backpressure, page_records=self.page_records, unverified=_never
        )
        worker.lane_modes.many = self.many_behind
        if self.clock.ahead_s > 0 or self.clock_forward_at > self.looked_at:
            self.endpoints.forget_waits()
        self.head_at_start = self.log.head
        self.started_at = self.loop.time()
        self.killed.clear()
        self.loop.on_kill = self._on_kill
        self.registry.freezes_proven = self.registry.freezes
        task = self.loop.create_task(worker.run())
        self.running = Running(worker, transport, ledger, task, stack)

    def _on_kill(self) -> None:
        if self.running is not None:
            self.running.transport.abandon()
        self.killed.set()

    async def ready(self) -> None:
        """Wait until the worker knows the subscriptions."""
        while self.at_work().worker.why_not_ready() is not None:  # noqa: ASYNC110 - time is virtual, looking costs nothing
            await asyncio.sleep(1.0)

    async def stop(self, *, crash: bool) -> None:
        """End the worker: at once, with everything that it has in memory, or as a service stops."""
        running = self.at_work()
        self.check()
        crash = crash or self.killed.is_set() or await self.killed_during(running.worker.drain())
        if not crash:
            assert running.transport.under_way == 0, "drained, and attempts are under way"
        # A full disk loses what cannot be written before the end, as a crash does.
        self.crashes += crash or self.disk_is_full
        running.transport.abandon()
        self.looked_at = self.looked_at if self.disk_is_full else self.loop.time() - _LOOKS_WITHIN_S
        self.disk_is_full = False
        running.task.cancel()
        if crash:
            self.loop.crash_jobs()
        with contextlib.suppress(asyncio.CancelledError):
            await running.task
        self.loop.killed = False
        await running.stack.aclose()
        self.running = None

    async def killed_during(self, act: Awaitable[None]) -> bool:
        """Wait for an act of the worker's process; return whether the process is killed before the act ends."""
        acting, killed = asyncio.ensure_future(act), asyncio.ensure_future(self.killed.wait())
        await asyncio.wait({acting, killed}, return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        if self.killed.is_set():
            acting.cancel()
            return True
        await acting
        return False

    async def passes(self, seconds: float) -> None:
        """Let time pass; if the worker is killed meanwhile, start another one at once."""
        if self.killed.is_set() or await self.killed_during(asyncio.sleep(seconds)):
            await self.stop(crash=True)
            await self.start()

    def at_work(self) -> Running:
        """Return the worker that is running."""
        assert self.running is not None
        if self.running.task.done() and not self.running.task.cancelled():
            self.running.task.result()
        return self.running

    async def fill_disk(self, *, full: bool) -> None:
        """Fill the disk of the ledger, or make room again."""
        if not await self.killed_during(self.store.fill(self.at_work().ledger, full=full)):
            self.disk_is_full = full

    # What happens

    def publish(self, count: int, event_type: str = "", audience: str = "") -> list[Record]:
        """Append events, of one type or of any."""
        return [self._publish_one(event_type, audience) for _ in range(count)]

    def _publish_one(self, event_type: str, audience: str) -> Record:
        source = "/shop"
        if not event_type:
            event_type, source = self.chance.choice(TYPES), self.chance.choice(("/shop", "/bank"))
            audience = self.chance.choice(CONSUMERS) if self.chance.random() < 0.3 else ""
        attributes = dict(self.chance.choice(_ATTRIBUTES))
        event = cloud_event(str(self.log.head + 1), event_type, source=source, **attributes)
        record = self.log.append(new_event(event, audience), accepted_ms=unix_ms(self.clock))
        self.order.published(record, source, attributes)
        self.published.append(Published(record, self.loop.time()))
        return record

    def subscribe(self) -> Wish:
        """Create a subscription."""
        self.subscriptions_made += 1
        wish = Wish(
            self.subscription_id(self.subscriptions_made),
            self.chance.choice(CONSUMERS),
            self.chance.choice(PATTERNS),
            self.chance.choice(("", "", "/shop")),
            rate_per_second=self.chance.choice((None, None, 20.0)),
            start_ms=self._some_start(),
            is_ordered=self.chance.random() < _ORDERED_SHARE,
        )
        return self.change(wish)

    def _some_start(self) -> int | None:
        """Return now for two of three subscriptions, and for the others the beginning of the log or the time of any event."""
        if self.chance.random() >= 1 / 3:
            return None
        return self.chance.choice((0, time_in(self.chance.choice(self.published).record.event_id))) if self.published else 0

    def trim(self) -> None:
        """Let the log drop what it may drop."""
        before, started = dict(self.log.records), {row.subscription_id for row in self.store.jobs()}
        self.log.trim()
        dropped = before.keys() - self.log.records.keys()
        for event in self.published:
            if event.record.position in dropped:
                event.dropped_at = self.loop.time()
                late = (id_ for id_, versions in self.versions.items() if id_ not in started and event.at < versions[0].told_at)
                event.dropped_for.update(late)
        self.after_trim()

    def change(self, wish: Wish) -> Wish:
        """Create a subscription, or replace it."""
        wish = self.registry.put(wish)
        self.note_version(wish.id, wish)
        return wish

    def note_version(self, subscription_id: str, wish: Wish | None) -> None:
        """Note what a subscription is from now on."""
        version, revision = Version(self.loop.time(), wish), self.registry.revision
        versions = self.versions.setdefault(subscription_id, [])
        before = versions[-1].wish if versions else wish
        if wish is not None and before is not None and wish.sink_revision != before.sink_revision:
            self.moved_at[subscription_id] = version.since
        versions.append(version)

        async def tell() -> None:
            await self.registry.told(revision)
            version.told_at = self.loop.time()
            told_after_s = version.told_at - max(version.since, self.registry.restarted_at)
            assert told_after_s < _TOLD_WITHIN_S, f"the caller who changed {subscription_id} had to wait for {told_after_s:.3f} s"

        self.telling.append(self.loop.create_task(tell()))

    async def told(self, wish: Wish) -> Version:
        """Wait until every caller who changed a subscription has an answer; return the subscription's latest version."""
        await asyncio.gather(*self.telling)
        return self.versions[wish.id][-1]

    def activate(self, subscription_id: str) -> None:
        """Resume or enable a subscription, if it is still there."""
        wish = self.registry.wishes.get(subscription_id)
        if wish is not None and wish.state != ACTIVE:
            self.change(replace(wish, state=ACTIVE))

    def pause_consumer(self, consumer_id: str, *, paused: bool) -> int:
        """Pause or resume a consumer; return the revision."""
        if paused:
            self.paused_at[consumer_id] = self.loop.time()
        return self.registry.pause_consumer(consumer_id, paused=paused)

    def delete(self, subscription_id: str) -> None:
        """Delete a subscription."""
        self.registry.delete(subscription_id)
        self.note_version(subscription_id, None)

    def set_clock_ahead(self, seconds: float, for_s: float) -> None:
        """Set the wall clock ahead (or behind, if negative) for `for_s` seconds."""
        self._step_clock(seconds)
        if seconds > 0 and self.running is not None and self.running.worker.follower is None:
            # The worker is starting: it takes the wall clock as it is when it has its lease.
            self.endpoints.forget_waits()
        self.loop.call_later(for_s, self._step_clock, 0.0)

    def _step_clock(self, ahead_s: float) -> None:
        if ahead_s > self.clock.ahead_s:
            self.clock_forward_at = self.loop.time()
        self.clock.ahead_s = ahead_s

    def freeze(self, seconds: float) -> None:
        """Suspend the worker's machine: only its boot clock goes on."""
        self.clock.suspended_s += seconds
        if seconds > GAP_MAX_S:
            self.registry.freezes += 1

    def lose_log(self) -> None:
        """Make the log unreachable for a while."""
        self.log.set_reachable(reachable=False)
        self.loop.call_later(self.chance.expovariate(0.5), lambda: self.log.set_reachable(reachable=True))

    def lose_registry(self) -> None:
        """Make the registry unreachable for a while."""
        self.registry.set_reachable(reachable=False)
        self.loop.call_later(self.chance.expovariate(0.5), self.return_registry)

    def return_registry(self) -> None:
        """Make the registry reachable again."""
        self.registry.set_reachable(reachable=True)
        # The worker may open its watch again up to some seconds later.
        self.registry_back_at = self.loop.time() + 4.0

    async def heal(self) -> None:
        """Make everything work again."""
        if self.running is None:
            await self.start()
        await self.fill_disk(full=False)
        self.loop.slowness = 1.0
        self.log.set_reachable(reachable=True)
        self.return_registry()
        self.endpoints.modes.clear()
        for wish in list(self.registry.wishes.values()):
            if wish.state == PAUSED:
                self.activate(wish.id)
        for consumer_id in sorted(self.registry.paused_consumers):
            self.pause_consumer(consumer_id, paused=False)

    async def settle(self, within_s: float) -> None:
        """Wait until every event is routed and every delivery is finished; fail after `within_s` seconds."""
        healed_at = self.loop.time()
        deadline = healed_at + within_s
        while self.open_rows() or self.store.ranges() or self._unstarted() or any(each.routed_by is None for each in self.published):
            self.check()
            self._check_due_times(healed_at)
            assert self.loop.time() < deadline, f"I8: not drained: {self.open_rows()[:3]} …"
            await self.passes(0.5)

    def _check_due_times(self, healed_at: float) -> None:
        """Check that no row waits for a former sink's due time, once the worker must have heard of the present sink."""
        if self.loop.time() - max(healed_at, self.started_at) < _FORGETS_WITHIN_S:
            return
        now_ms = self.at_work().worker.dispatcher.due.now_ms()
        for row in self.open_rows():
            wish = self.registry.wishes.get(row.subscription_id)
            if wish is not None and row.failed_sink not in {0, sink_fingerprint(wish.sink_revision, None)}:
                assert row.due_ms <= now_ms, f"waits for {row.due_ms - now_ms} ms by a former sink's time: {row}"

    def _unstarted(self) -> set[str]:
        """Return the ids of the subscriptions whose start in the past is to come."""
        wanted = {wish.id for wish in self.registry.wishes.values() if wish.start_ms is not None and wish.state != DISABLED}
        return wanted - {row.subscription_id for row in self.store.jobs()}

    # What must be true

    def check(self) -> None:
        """Check the invariants that hold at every moment."""
        running = self.at_work()
        assert not self.endpoints.violations, self.endpoints.violations[:3]
        settings, transport = self.settings, running.transport
        assert transport.under_way <= settings.delivery_in_flight_max, f"{transport.under_way} requests are under way"
        of_lane = max(transport.under_way_of.values(), default=0)
        assert of_lane <= settings.delivery_lane_in_flight_max, f"{of_lane} requests of one lane are under way"
        check_phases(running.worker.dispatcher.lanes)
        [recorded] = map(recorded_position, self.store.cursor().shards)
        for each in self.published:
            if each.routed_by is None and recorded.position >= each.record.position:
                each.routed_by = self.loop.time()
        note_owed(self.published, self.store.ranges(), self.loop.time())
        for row in self.store.jobs():
            if row.state != RUNNING:
                first = self.versions[row.subscription_id][0]
                first.started_by = min(first.started_by, self.loop.time())
        self.checks += 1
        for delivery, state, _ in self.store.ends() if self.checks % 10 == 0 else ():
            assert self.finished.setdefault(delivery, state) == state, f"I4: {delivery.hex()} was {self.finished[delivery]}, is {state}"

    def states(self) -> dict[bytes, State]:
        """Return the states of the finished deliveries by their ids."""
        return {delivery: state for delivery, state, _ in self.store.ends()}

    def open_rows(self) -> list[OpenRow]:
        """Return the unfinished deliveries."""
        return self.store.open_rows()

    def _is_recorded(self, key: Key) -> bool:
        return self.store.has_done_row(delivery_id(*key))

    def _is_unrecorded(self, key: Key) -> bool:
        before = position_in(key[0]) <= self.head_at_start
        return before and not self.store.has_open_row(delivery_id(*key))

    def _overtakes(self, key: Key) -> bool:
        versions = self.versions[key[1]]
        return self.order.overtakes(key, versions, self.loop.time(), self._has_recorded_end)

    def _has_recorded_end(self, key: Key) -> bool:
        if self._is_recorded(key) or key[0] in self.store.set_aside():
            return True
        position = position_in(key[0])
        return any(row.after[0] < position <= row.through[0] for row in self.store.ended(key[1]))

    def _is_silenced(self, subscription_id: str) -> bool:
        latest = self.versions[subscription_id][-1]
        if latest.wish is not None and latest.wish.consumer_id in self.registry.paused_consumers:
            return self._is_heard_of(self.paused_at[latest.wish.consumer_id])
        return self._is_heard_of(latest.since) and (latest.wish is None or latest.wish.state != ACTIVE)

    def _is_elsewhere(self, subscription_id: str, url: str) -> bool:
        latest = self.versions[subscription_id][-1]
        return self._is_heard_of(latest.since) and latest.wish is not None and latest.wish.sink != url

    def _moved_by(self, subscription_id: str) -> float:
        if subscription_id not in self.moved_at:
            return 0.0
        return max(self.moved_at[subscription_id], self.registry_back_at) + _HEARS_WITHIN_S if self.registry.reachable else float("inf")

    def _is_heard_of(self, changed_at: float) -> bool:
        return self.loop.time() - max(changed_at, self.registry_back_at) > _HEARS_WITHIN_S and self.registry.reachable


def _never(subscription_id: str, _consumer_id: str) -> None:
    message = f"the registry of tests wants no verification, and {subscription_id} was to be verified"
    raise AssertionError(message)
