"""Expiry warnings: against a log in memory that counts its reads."""

import asyncio
from dataclasses import dataclass, field, replace

from services.delivery.model import SubscriptionStatus
from services.delivery.request.request_settings import RequestSettings, Subscription
from services.delivery.worker.expiry_warnings import READS_MAX, ExpiryWarnings, Waiting
from services.eventlog.filtered_read import ReadPage, ReadQuery
from services.eventlog.record import NewEvent
from tests.simulation.event_log import MemoryEventLog

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
RETENTION_S = 7 * 86400.0


def subscription(number: int, *types: str) -> Subscription:
    return Subscription(
        id=f"sub_{number}",
        consumer_id="con_1",
        sink="https://consumer.example",
        types=types,
        source="",
        status=SubscriptionStatus.ACTIVE,
        revision=1,
        settings=RequestSettings(),
    )


class CountedLog(MemoryEventLog):
    """A log that counts its reads."""

    reads = 0

    async def read(self, query: ReadQuery) -> ReadPage:
        """See `EventReader.read`."""
        self.reads += 1
        return await super().read(query)


@dataclass
class World:
    """A log, the lanes that are behind, and the warnings."""

    log: CountedLog = field(default_factory=lambda: CountedLog(lambda: asyncio.sleep(0)))
    waiting: list[Waiting] = field(default_factory=list)
    now_ms: int = 0
    raised: list[tuple[str, str, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.warnings = ExpiryWarnings(
            self.log, lambda: self.waiting, self._raise, age_ms=lambda ms: self.now_ms - ms, log_retention_s=lambda: RETENTION_S
        )

    def _raise(self, subscription: Subscription, at: str, *, waiting_since_ms: int, expires_ms: int) -> None:
        self.raised.append((subscription.id, at, waiting_since_ms, expires_ms))

    def append(self, type_: str, time_ms: int) -> int:
        """Append an event; return its position."""
        event = NewEvent(0, "/shop", str(self.log.head), type_, "", b"", b"x")
        return self.log.append(event, accepted_ms=time_ms).position


async def test_the_owner_is_warned_of_the_oldest_event_that_waits_and_of_no_other() -> None:
    """A day before it is dropped, and once a day at most."""
    world = World()
    for hour in range(48):
        world.append("mine" if hour % 10 == 5 else "other", hour * HOUR_MS)
    world.waiting = [Waiting(subscription(1, "mine"), 0), Waiting(subscription(2, "nothing"), 0)]
    world.now_ms = 6 * DAY_MS + 4 * HOUR_MS
    await world.warnings.step()
    assert world.raised == []
    world.now_ms += HOUR_MS
    for _ in range(3):
        await world.warnings.step()
    assert world.raised == [("sub_1", "6", 5 * HOUR_MS, 5 * HOUR_MS + 7 * DAY_MS)]
    world.waiting = [Waiting(subscription(1, "mine"), 6)]
    world.now_ms += 10 * HOUR_MS
    await world.warnings.step()
    assert len(world.raised) == 1
    world.waiting = [Waiting(subscription(1, "mine"), 26)]
    world.now_ms += DAY_MS
    await world.warnings.step()
    assert [each[1] for each in world.raised] == ["6", "36"]


async def test_a_pass_without_old_events_costs_one_read_however_many_lanes_are_behind() -> None:
    world = World()
    for hour in range(10):
        world.append("mine", hour * HOUR_MS)
    world.waiting = [Waiting(subscription(number), number % 5) for number in range(1000)]
    world.now_ms = 5 * DAY_MS
    await world.warnings.step()
    assert (world.raised, world.log.reads) == ([], 1)


async def test_a_pass_is_bounded_and_the_next_ones_reach_all_lanes() -> None:
    world = World()
    for hour in range(10):
        world.append("mine", hour)
    world.waiting = [Waiting(subscription(number), 0) for number in range(350)]
    world.now_ms = 7 * DAY_MS
    before = 0
    for _ in range(5):
        await world.warnings.step()
        assert world.log.reads - before <= READS_MAX + 1
        before = world.log.reads
    assert {each[0] for each in world.raised} == {f"sub_{number}" for number in range(350)}
    assert len(world.raised) == 350


async def test_a_changed_filter_is_looked_at_anew() -> None:
    world = World()
    world.append("a", 0)
    world.append("b", HOUR_MS)
    world.now_ms = 7 * DAY_MS
    first = subscription(1, "c")
    world.waiting = [Waiting(first, 0)]
    await world.warnings.step()
    assert world.raised == []
    world.waiting = [Waiting(replace(first, types=("b",), revision=2), 0)]
    await world.warnings.step()
    assert [each[1] for each in world.raised] == ["2"]


async def test_a_log_that_is_away_ends_a_pass_and_the_next_one_warns() -> None:
    world = World()
    world.append("a", 0)
    world.now_ms = 7 * DAY_MS
    world.waiting = [Waiting(subscription(1), 0)]
    world.log.set_reachable(reachable=False)
    await world.warnings.step()
    assert world.raised == []
    world.log.set_reachable(reachable=True)
    await world.warnings.step()
    assert len(world.raised) == 1
