"""Fair rounds: who starts the next attempt, in a model of consumers whose endpoints take their time, with every place counted."""

import heapq
import itertools
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from services.delivery.dispatch.fair_rounds import SHARES, UNRECORDED_RESERVE, Account, Consumer, FairRounds, Flow, Work
from services.delivery.dispatch.lane import Lane


@dataclass(eq=False)
class Source:
    """A lane that always has something to send."""

    lane: Lane
    takes_s: float
    work: Work = Work.FRESH
    limit: int = 1000
    joined: bool = False


@dataclass
class Model:
    """Attempts that end after their time, and a scheduler that starts as many as it can."""

    places: int
    now: float = 0.0
    started: Counter[str] = field(default_factory=Counter)
    busy_s: dict[Consumer, float] = field(default_factory=lambda: defaultdict(float))
    in_flight: int = 0
    paced: bool = False
    """Whether only one attempt starts in each `run`, as if the processor were the limit."""

    def __post_init__(self) -> None:
        self.rounds = FairRounds(self.places)
        self.sources: dict[Lane, Source] = {}
        self._ends: list[tuple[float, int, Lane, Flow, float]] = []
        self._numbers = itertools.count()

    def add(self, consumer: Consumer, takes_s: float, work: Work = Work.FRESH, limit: int = 1000) -> Source:
        """Add a lane of a consumer."""
        source = Source(Lane(f"{consumer.id}/{len(self.sources)}", consumer), takes_s, work, limit)
        self.sources[source.lane] = source
        consumer.lanes[source.lane] = None
        return source

    def join(self, source: Source) -> None:
        """Let a lane that is below its limit wait for its turn."""
        if not source.joined and source.lane.in_flight < source.limit:
            source.joined = True
            self.rounds.join(source.lane, source.work)

    def start(self) -> None:
        """Start as many attempts as the rounds permit."""
        while True:
            free = self.places - self.in_flight
            lane = self.rounds.next(self.now, free) if free else None
            if lane is None:
                return
            source = self.sources[lane]
            source.joined = False
            assert lane.consumer.in_flight < free
            assert lane.in_flight < free - lane.consumer.in_flight or len(lane.consumer.lanes) == 1
            assert lane.flow is not None
            self.rounds.started(lane.flow)
            lane.in_flight += 1
            self.in_flight += 1
            self.started[lane.subscription_id] += 1
            heapq.heappush(self._ends, (self.now + source.takes_s, next(self._numbers), lane, lane.flow, self.now))
            self.join(source)
            if self.paced:
                return

    def run(self, until: float) -> None:
        """Let time pass."""
        for source in self.sources.values():
            self.join(source)
        if not self.paced:
            self.start()
        while self._ends and self._ends[0][0] <= until:
            self.now, _, lane, flow, began = heapq.heappop(self._ends)
            lane.in_flight -= 1
            self.in_flight -= 1
            self.busy_s[lane.consumer] += self.now - began
            self.rounds.ended(lane, flow, self.now - began)
            self.join(self.sources[lane])
            if not self.paced:
                self.start()
        if self.paced:
            self.start()
        else:
            self.check()
        self.now = until

    def check(self) -> None:
        """Check that nobody waits who may start."""
        free = self.places - self.in_flight
        for source in self.sources.values():
            lane = source.lane
            if source.joined:
                assert lane.in_flight >= free - lane.consumer.in_flight, f"{lane.subscription_id} waits, and {free} places are free"


def test_a_consumer_alone_gets_half_of_the_places_and_its_only_lane_nearly_as_many() -> None:
    """With a second lane, a lane that has much to do gets a third. The second lane need not wait for the first one's attempts."""
    model, consumer = Model(places=120), Consumer("a")
    first = model.add(consumer, 1.0)
    model.run(1.5)
    assert first.lane.in_flight == consumer.in_flight == 57
    second = model.add(consumer, 1.0, limit=2)
    model.run(1.51)
    assert second.lane.in_flight == 2
    second.limit = 0
    model.run(5.0)
    assert (first.lane.in_flight, second.lane.in_flight) == (40, 0)
    for _ in range(30):
        model.add(consumer, 1.0)
    model.run(8.0)
    assert 58 <= consumer.in_flight <= 60


@pytest.mark.parametrize("count", [2, 5, 20])
def test_each_of_several_consumers_gets_an_equal_part_and_one_part_stays_free(count: int) -> None:
    model, consumers = Model(places=512), [Consumer(str(number)) for number in range(count)]
    for consumer in consumers:
        for _ in range(30):
            model.add(consumer, 1.0)
    model.run(20.0)
    part = 512 // (count + 1)
    assert all(abs(consumer.in_flight - part) <= 2 for consumer in consumers)


def test_three_hundred_slow_endpoints_leave_another_consumer_its_throughput() -> None:
    """The slow ones answer after 28 s, and as many attempts to them are under way as they may have."""

    def healthy(slow_lanes: int) -> int:
        model, victim = Model(places=512), Consumer("healthy")
        slow = Consumer("slow")
        for _ in range(slow_lanes):
            model.add(slow, 28.0, limit=4)
        model.run(30.0)
        one = model.add(victim, 0.01, limit=64)
        model.run(32.0)
        before = model.started[one.lane.subscription_id]
        model.run(34.0)
        return model.started[one.lane.subscription_id] - before

    assert healthy(300) >= 0.9 * healthy(0)


def test_a_consumer_with_slow_endpoints_pays_for_their_time_and_does_not_starve() -> None:
    """Ten attempts start in a second, whosever they are; the consumer that uses less time comes first."""
    model, slow, quick = Model(places=20, paced=True), Consumer("slow"), Consumer("quick")
    for _ in range(40):
        model.add(slow, 5.0)
    for _ in range(10):
        model.add(quick, 0.2)
    for tick in range(600):
        model.run(tick / 10)
    starts = Counter(
        {
            consumer: sum(model.started[lane.subscription_id] for lane in model.sources if lane.consumer is consumer)
            for consumer in (slow, quick)
        }
    )
    assert starts[slow] >= 50
    assert starts[quick] >= 4 * starts[slow]


def test_lanes_of_one_consumer_share_its_places_by_time() -> None:
    model, consumer = Model(places=90), Consumer("a")
    slow, quick = model.add(consumer, 2.0), model.add(consumer, 0.1)
    model.run(60.0)
    assert abs(slow.lane.in_flight - quick.lane.in_flight) <= 2
    assert model.started[quick.lane.subscription_id] > 15 * model.started[slow.lane.subscription_id]


def test_each_class_of_work_gets_its_share_while_all_want_more() -> None:
    model = Model(places=200)
    for consumer in [Consumer(str(number)) for number in range(4)]:
        for work, _ in itertools.product(Work, range(30)):
            model.add(consumer, 1.0, work)
    model.run(12.0)
    used = {work: sum(source.lane.in_flight for source in model.sources.values() if source.work is work) for work in Work}
    total = sum(used.values())
    for work, share in zip(Work, SHARES, strict=True):
        assert abs(used[work] / total - share / 100) <= 0.03


def test_what_a_class_does_not_use_is_lent() -> None:
    model = Model(places=100)
    model.add(Consumer("a"), 1.0, Work.REPLAY)
    for _ in range(5):
        model.add(Consumer("b"), 1.0, Work.RETRY)
    model.run(10.0)
    assert model.in_flight >= 60


def test_a_consumer_whose_attempts_wait_for_a_flush_keeps_no_other_waiting() -> None:
    """It takes nothing of the reserve. A consumer with few unrecorded attempts goes on, and the first one does once some are recorded."""
    rounds, busy, other = FairRounds(10_000), Consumer("busy"), Consumer("other")
    recordable = UNRECORDED_RESERVE + 50
    busy_lane, other_lane = Lane("1", busy), Lane("2", other)

    def starts(lane: Lane) -> int:
        """Let a lane start as many attempts as it may; return how many."""
        nonlocal recordable
        rounds.join(lane, Work.FRESH)
        started = 0
        while recordable and rounds.next(0.0, 10_000, recordable) is lane:
            assert lane.flow is not None
            rounds.started(lane.flow)
            rounds.join(lane, Work.FRESH)
            recordable, started = recordable - 1, started + 1
        return started

    def recorded(consumer: Consumer, count: int) -> None:
        nonlocal recordable
        for _ in range(count):
            rounds.recorded(consumer)
        recordable += count

    busy.unrecorded = 500
    assert starts(busy_lane) == 50
    assert (starts(other_lane), recordable, other.unrecorded) == (100, 100, 100)
    # Attempts of others that are recorded make room for both. The consumer that has few comes first.
    recorded(other, 100)
    assert recordable == UNRECORDED_RESERVE
    served = rounds.next(0.0, 10_000, recordable)
    assert served is other_lane
    assert rounds.next(0.0, 10_000, recordable) is None
    # A flush records much of what the first one has done.
    recorded(busy, 400)
    assert rounds.next(0.0, 10_000, recordable) is busy_lane
    assert rounds.next(0.0, 10_000, recordable) is None


def test_waiting_consumers_take_turns_again_once_more_may_be_unrecorded() -> None:
    rounds, waiting, another = FairRounds(10), Consumer("a", unrecorded=10), Consumer("b", unrecorded=20)
    for number, consumer in enumerate((waiting, another)):
        rounds.join(Lane(str(number), consumer), Work.FRESH)
    assert rounds.next(0.0, 10, 5) is None
    assert (waiting.awaits_flush, another.awaits_flush) == (True, True)
    found = rounds.next(0.0, 10, 11)
    assert found is not None
    assert found.consumer is waiting
    assert rounds.next(0.0, 10, 11) is None
    found = rounds.next(0.0, 10, 21)
    assert found is not None
    assert found.consumer is another


def test_a_paused_consumer_takes_no_turn_until_its_pause_is_over() -> None:
    rounds, paused = FairRounds(10), Consumer("a", is_paused=True)
    lane = Lane("1", paused)
    rounds.join(lane, Work.FRESH)
    assert rounds.next(0.0, 10) is None
    paused.is_paused = False
    rounds.resume(paused)
    assert rounds.next(0.0, 10) is lane


def test_members_in_debt_get_a_turn_at_least_every_eighth() -> None:
    rounds = FairRounds(10)
    lanes = [Lane(str(number), Consumer(str(number))) for number in range(3)]
    for lane in lanes:
        rounds.join(lane, Work.FRESH)
    lanes[0].consumer.account.earn(0.0, 1.0)
    lanes[0].consumer.account.credit_s = -50.0
    order = []
    for _ in range(32):
        served = rounds.next(0.0, 10)
        assert served is not None
        order.append(served)
        rounds.join(served, Work.FRESH)
    assert order.count(lanes[0]) == 4
    assert abs(order.count(lanes[1]) - order.count(lanes[2])) <= 1


def test_an_account_earns_by_the_second_and_its_credit_and_debt_are_bounded() -> None:
    account = Account()
    account.earn(100.0, 10.0)
    assert account.credit_s == 10.0
    account.credit_s -= 10_000.0
    account.earn(101.0, 10.0)
    assert account.credit_s == -590.0
    account.earn(161.0, 10.0)
    assert account.credit_s == 10.0


@settings(deadline=None, max_examples=30, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    st.integers(1, 40),
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([0.5, 1.0, 7.0]), st.sampled_from(Work), st.integers(1, 9)), min_size=1, max_size=12
    ),
    st.randoms(use_true_random=False),
)
def test_whoever_wants_what_nobody_starves_and_no_place_is_left_that_somebody_may_take(
    places: int, lanes: list[tuple[int, float, Work, int]], chance: random.Random
) -> None:
    """`Model.check` looks at every lane after each run."""
    model, consumers = Model(places), [Consumer(str(number)) for number in range(5)]
    for consumer, takes_s, work, limit in lanes:
        model.add(consumers[consumer], takes_s, work, limit)
        if chance.random() < 0.3:
            model.run(model.now + chance.random())
    for _ in range(40 * len(lanes)):
        model.run(model.now + 7.0)
        if len(model.started) == len(lanes):
            break
    assert set(model.started) == {lane.subscription_id for lane in model.sources}
    assert sum(consumer.in_flight for consumer in consumers) == model.in_flight <= places
