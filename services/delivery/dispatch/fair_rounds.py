"""Fair rounds: which lane starts the next attempt.

lane → attempt_scheduler → [fair_rounds] → sender

Deficit round robin over consumers, and then over a consumer's lanes of each class of work, by the time that their attempts are under way:
an endpoint that answers after 28 s pays for 28 s. Everybody earns an equal part of the places for attempts, second by second, and pays for
each attempt with its duration. Members in credit take turns. A member in debt gets a turn if no member in credit wants one, and at least
every eighth.

Law 1: pure; time (seconds of a monotonic clock) arrives as an argument.
Law 2: a consumer may start an attempt while it has fewer under way than there are free places. A lane may start one while it has fewer
under way than its consumer may still start. A consumer's only lane may have up to eight times as many, and leaves a place
for that consumer's next lane. Hence a consumer alone gets half of all places, and each of n consumers gets one of n + 1 parts. One part is
always free, so the next consumer need not wait until a slow endpoint has answered.
Law 3: attempts that are not recorded have their own bound, with a reserve. A consumer may use the reserve only while it has fewer such
attempts than there is room for. So a consumer whose many attempts wait for a flush keeps no other consumer waiting.
Law 4: each class of work has a share of its consumer's attempts under way while it wants them. What it does not use is lent to the others.
Law 5: `next` returns a lane whenever one waits that may start an attempt by laws 2 and 3, and whose consumer is not paused.
Law 6: `next` takes constant time, apart from consumers and lanes that have reached their bound since the last call.
"""

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from services.delivery.dispatch.unproven_sinks import UnprovenSinks

if TYPE_CHECKING:
    from services.delivery.dispatch.lane import Lane


class Work(enum.IntEnum):
    """The classes of work; the number is the place in the tables below."""

    FRESH = 0
    """Events that are delivered as they come."""
    CATCH_UP = 1
    """The first attempts for events that have waited."""
    RETRY = 2
    """Further attempts."""
    REPLAY = 3
    """Past events that somebody wants again."""


SHARES: Final = (50, 20, 20, 10)
"""The share of each class in its consumer's attempts under way, in percent, while all of them want more."""
_CREDIT_MAX_S, _DEBT_MAX_S = 1.0, 60.0
_DEBTOR_EVERY = 8
_ONLY_LANE_PARTS = 8
# A start takes a free place, and the consumer has one more attempt under way.
_TAKEN_BY_A_START = 2
UNRECORDED_RESERVE: Final = 200
"""How many of the attempts that may be unrecorded are for consumers that have few of them."""
# To add what a member has earned costs more than its turn.
_EARN_EVERY_S = 0.01
NO_BOUND: Final = 1 << 30
"""More attempts than can ever be under way."""


class Account:
    """What a member has earned and paid, in seconds of attempts under way."""

    __slots__ = ("at", "credit_s")

    def __init__(self) -> None:
        """Start with the credit of a member that has been idle."""
        self.credit_s = 0.0
        self.at = float("-inf")
        """Until when it has earned, by the monotonic clock."""

    def earn(self, now: float, rate: float) -> None:
        """Earn `rate` seconds a second up to now; credit and debt are bounded."""
        self.credit_s = min(rate * _CREDIT_MAX_S, max(self.credit_s, -rate * _DEBT_MAX_S) + rate * (now - self.at))
        self.at = now


class Member(Protocol):
    """Who takes turns."""

    account: Account


M = TypeVar("M", bound=Member)


class Turns(Generic[M]):
    """Members that wait for their turn; each is in it at most once."""

    __slots__ = ("_in_credit", "_in_debt", "_since_debtor")

    def __init__(self) -> None:
        """Start empty."""
        self._in_credit: deque[M] = deque()  # bounded: each member is in one of the two, once
        self._in_debt: deque[M] = deque()
        self._since_debtor = 0

    def join(self, member: M) -> None:
        """Let a member wait for its turn, behind all others."""
        self._in_credit.append(member)

    def next(self, now: float, places: int) -> M | None:
        """Remove and return the member whose turn it is, None if nobody waits. All of them together earn `places` seconds a second."""
        in_credit, in_debt = self._in_credit, self._in_debt
        if not in_debt and len(in_credit) <= 1:
            return in_credit.pop() if in_credit else None
        stale = now - _EARN_EVERY_S
        if in_debt:
            first = in_debt[0].account
            if first.at < stale:
                first.earn(now, places / (len(in_credit) + len(in_debt)))
            if first.credit_s >= 0:
                in_credit.append(in_debt.popleft())
            elif self._since_debtor >= _DEBTOR_EVERY - 1:
                self._since_debtor = 0
                return in_debt.popleft()
        while in_credit:
            member = in_credit.popleft()
            account = member.account
            if account.at < stale:
                account.earn(now, places / (len(in_credit) + len(in_debt) + 1))
            if account.credit_s >= 0:
                self._since_debtor += 1
                return member
            in_debt.append(member)
        self._since_debtor = 0
        return in_debt.popleft()


@dataclass(slots=True, eq=False)
class Flow:
    """The lanes of one consumer with one class of work that wait for a turn."""

    consumer: "Consumer"
    work: Work
    share: int
    in_flight: int = 0
    served: float = 0.0
    """Grows with each turn, the slower the larger the share is: it decides between classes that use the same part of their shares."""
    lanes: "Turns[Lane]" = field(default_factory=Turns)
    held_back: "list[Lane]" = field(default_factory=list)  # bounded: each lane is in `lanes` or here, once
    """The lanes that have as many attempts under way as their consumer may still start."""

    waiting: int = 0
    """How many lanes are in `lanes`."""

    def next(self, now: float, room: int) -> "Lane | None":
        """Remove and return the lane whose turn it is, if the consumer may start `room` more attempts; None if all are held back."""
        consumer = self.consumer
        while (lane := self.lanes.next(now, consumer.in_flight + 1)) is not None:
            self.waiting -= 1
            consumer.waiting -= 1
            if lane.in_flight < room:
                return lane
            needed = lane.in_flight if len(consumer.lanes) > 1 else max(_TAKEN_BY_A_START, lane.in_flight // _ONLY_LANE_PARTS)
            if needed < room:
                return lane
            self.held_back.append(lane)
            consumer.held_back_at = min(consumer.held_back_at, needed)
        return None


@dataclass(slots=True, eq=False)
class Consumer:
    """What one consumer uses of what all consumers share."""

    id: str = ""
    account: Account = field(default_factory=Account)
    in_flight: int = 0
    """How many of its attempts are under way."""
    unrecorded: int = 0
    """How many of its attempts, under way or ended, are not in the ledger yet."""
    awaits_flush: bool = False
    """Whether it waits until fewer attempts are unrecorded."""
    is_paused: bool = False
    """Whether the operator has paused it: none of its lanes may send."""
    lanes: "dict[Lane, None]" = field(default_factory=dict)
    """Its lanes."""
    held: int = 0
    """How many of its deliveries are held in memory."""
    held_bytes: int = 0
    """About how much memory they take."""
    handed: int = 0
    """How many of those in memory were read from owed ranges, and are not written."""
    unproven: UnprovenSinks = field(default_factory=UnprovenSinks)
    unparks: bool = False
    """Whether a timer runs that lets its next lane with an unproven sink try."""
    waiting_rows: int = 0
    """About how many of its rows wait that were never attempted."""
    flows: list[Flow] = field(default_factory=list)
    """Its lanes that wait for a turn: one flow for each class of work that it has had."""
    waiting: int = 0
    """How many of its lanes wait for a turn and are not held back."""
    takes_turns: bool = False
    """Whether it is among the consumers that take turns."""
    is_held_back: bool = False
    """Whether it or one of its lanes waits until it has fewer attempts under way, or until more places are free."""
    held_back_at: int = NO_BOUND
    """No lane that is held back has fewer attempts under way than this."""
    _served: float = 0.0

    def flow(self, work: Work) -> Flow:
        """Return the flow of a class of work, a new one the first time."""
        for flow in self.flows:
            if flow.work is work:
                return flow
        self.flows.append(Flow(self, work, SHARES[work]))
        return self.flows[-1]

    def next(self, now: float, room: int) -> "Lane | None":
        """Remove and return the lane whose turn it is, if `room` more attempts may start; None if all are held back."""
        if len(self.flows) == 1:
            return self.flows[0].next(now, room)
        while waiting := [flow for flow in self.flows if flow.waiting]:
            flow = min(waiting, key=self._use)
            lane = flow.next(now, room)
            if lane is not None:
                self._served = max(self._served, flow.served)
                flow.served = self._served + 1 / flow.share
                return lane
        return None

    def _use(self, flow: Flow) -> tuple[float, float]:
        # A class that has not waited for a while does not make up for it.
        return flow.in_flight / flow.share, max(flow.served, self._served)


class FairRounds:
    """All lanes that wait for a turn."""

    def __init__(self, places: int) -> None:
        """`places` is how many attempts may be under way at once."""
        self.places = places
        self._turns: Turns[Consumer] = Turns()
        self._held_back: dict[Consumer, None] = {}  # bounded: each consumer is in it once
        # If no more places than this are free, nobody who is held back may start an attempt.
        self._held_back_at = NO_BOUND
        self._awaits_flush: dict[Consumer, None] = {}  # bounded: each consumer is in it once
        # While no more attempts than this may be unrecorded, all of these consumers wait.
        self._awaits_more_than = 0

    def join(self, lane: "Lane", work: Work) -> None:
        """Let a lane that is in no round wait for its turn."""
        consumer, flow = lane.consumer, lane.flow
        if flow is None or flow.work is not work:
            flow = lane.flow = consumer.flow(work)
        flow.lanes.join(lane)
        flow.waiting += 1
        consumer.waiting += 1
        if not consumer.takes_turns:
            consumer.takes_turns = True
            self._turns.join(consumer)

    def next(self, now: float, free: int, recordable: int = NO_BOUND) -> "Lane | None":
        """Remove and return the lane whose turn it is; None if no lane may start an attempt.

        `free` is how many more attempts may start now, and `recordable` how many more may be unrecorded.
        """
        if free > self._held_back_at or self._awaits_flush:
            self._end_waits(free, recordable)
        turns = self._turns
        while (consumer := turns.next(now, self.places)) is not None:
            room = free - consumer.in_flight
            if consumer.is_paused:
                consumer.takes_turns = False
                continue
            if room <= 0:
                consumer.takes_turns = False
                self._hold_back(consumer, consumer.in_flight)
                continue
            if recordable <= UNRECORDED_RESERVE and consumer.unrecorded >= recordable:
                consumer.takes_turns = False
                self._await_flush(consumer, recordable)
                continue
            lane = consumer.next(now, room)
            if consumer.held_back_at < NO_BOUND:
                self._hold_back(consumer, consumer.in_flight + consumer.held_back_at)
            if consumer.waiting:
                turns.join(consumer)
            else:
                consumer.takes_turns = False
            if lane is not None:
                return lane
        return None

    def _end_waits(self, free: int, recordable: int) -> None:
        """Let waiting consumers take turns again, if there may be room for one of them."""
        if self._awaits_flush and recordable > self._awaits_more_than:
            for each in list(self._awaits_flush):
                self._end_wait(each)
        if free > self._held_back_at:
            for each in list(self._held_back):
                self._release(each)

    def resume(self, consumer: Consumer) -> None:
        """Let a consumer take its turns again, because its pause is over."""
        if consumer.waiting and not consumer.takes_turns:
            consumer.takes_turns = True
            self._turns.join(consumer)

    def started(self, flow: Flow) -> None:
        """Note that the lane that `next` has returned from this flow starts an attempt."""
        flow.consumer.in_flight += 1
        flow.consumer.unrecorded += 1
        flow.in_flight += 1

    def ended(self, lane: "Lane", flow: Flow, lasted_s: float) -> None:
        """Note that such an attempt has ended; lane and consumer pay for its duration."""
        consumer = flow.consumer
        consumer.in_flight -= 1
        flow.in_flight -= 1
        consumer.account.credit_s -= lasted_s
        lane.account.credit_s -= lasted_s
        if consumer.is_held_back:
            self._release(consumer)

    def recorded(self, consumer: Consumer) -> None:
        """Note that an attempt of a consumer is recorded, or need not be."""
        consumer.unrecorded -= 1
        if consumer.awaits_flush:
            self._end_wait(consumer)

    def _await_flush(self, consumer: Consumer, recordable: int) -> None:
        self._awaits_more_than = max(recordable, self._awaits_more_than) if self._awaits_flush else recordable
        self._awaits_flush[consumer] = None
        consumer.awaits_flush = True

    def _end_wait(self, consumer: Consumer) -> None:
        del self._awaits_flush[consumer]
        consumer.awaits_flush = False
        self.resume(consumer)

    def _hold_back(self, consumer: Consumer, at: int) -> None:
        self._held_back[consumer] = None
        consumer.is_held_back = True
        self._held_back_at = min(self._held_back_at, at)

    def _release(self, consumer: Consumer) -> None:
        del self._held_back[consumer]
        consumer.is_held_back, consumer.held_back_at = False, NO_BOUND
        for flow in consumer.flows:
            for lane in flow.held_back:
                flow.lanes.join(lane)
            flow.waiting += len(flow.held_back)
            consumer.waiting += len(flow.held_back)
            flow.held_back.clear()
        self.resume(consumer)
        if not self._held_back:
            self._held_back_at = NO_BOUND
