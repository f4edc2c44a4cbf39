"""Endpoints: endpoints in memory and the transport to them; they behave as a test says and check each request that they get."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from services.delivery.transport.protocol import WITHDRAWN, Answer, Outcome, Request

TIMEOUT_S = 15.0
LATE_S = 5.0
LONG_S = 3600


class Mode(Enum):
    """How an endpoint behaves."""

    OK = "answers 200 at once"
    SLOW = "answers 200 after a while"
    FAILING = "answers 500"
    THROTTLING = "answers 429 and names a time"
    SILENT = "never answers"
    FLAKY = "does one or the other"
    GONE = "answers 410"
    LATE_GONE = "answers 410 after a while"
    LATE_THROTTLING = "answers 429 after a while and names a long time"


Key = tuple[str, str]
"""A delivery: event and subscription."""


@dataclass
class Sent:
    """What the endpoints know of one delivery's requests."""

    attempts: int = 0
    """The attempt number of the latest request."""
    began_at: float = 0.0
    answered_at: float = 0.0
    wait_s: float = 0.0
    """How long after the latest answer no further attempt may begin."""
    asked_s: float = 0.0
    """The pause that the latest answer asked for; it binds only attempts at the sink that asked."""
    successes: int = 0
    given_up: bool = False
    """Whether the running worker has received the failure of the last attempt that it makes."""
    heard: bool = False
    """Whether the running worker has received a success."""
    under_way: bool = False
    url: str = ""
    """The sink of the latest request."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One request: its delivery, its time, its attempt number and its URL."""

    key: Key
    at: float
    number: int
    url: str


@dataclass
class Endpoints:
    """All endpoints, by subscription."""

    chance: random.Random
    delays_s: tuple[float, ...]
    modes: dict[str, Mode] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """The ids of events that every endpoint answers with 500, whatever its mode."""
    slow_s: float | None = None
    """How long a slow endpoint takes; None: a random time for each request."""
    sent: dict[Key, Sent] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    throttled_until: dict[tuple[str, str], float] = field(default_factory=dict)
    """When each pause ends, by subscription and sink."""
    violations: list[str] = field(default_factory=list)
    recorded: Callable[[Key], bool] = lambda _key: False
    """Whether the ledger holds a delivery as finished."""
    silenced: Callable[[str], bool] = lambda _subscription_id: False
    """Whether a subscription has been paused, disabled or deleted for longer than a worker may need to hear of the change."""
    unrecorded: Callable[[Key], bool] = lambda _key: False
    """Whether a delivery must be recorded before it is sent, and is not."""
    overtakes: Callable[[Key], bool] = lambda _key: False
    """Whether its subscription wants order, and an earlier event of its key is unfinished."""
    elsewhere: Callable[[str, str], bool] = lambda _subscription_id, _url: False
    """Whether a subscription's sink is another URL, and has been for longer than a worker may need to hear of the change."""
    moved_by: Callable[[str], float] = lambda _subscription_id: 0.0
    """Until when a request of a subscription may have been made for a former sink, as far as the worker may not have heard of a change."""
    unproven: Callable[[], bool] = lambda: False
    """Whether the worker was frozen and has not asked the registry since."""
    at_once: int = 1 << 30
    """How many requests may be under way at once: all sinks share one host, and further requests wait for their turn."""
    log: list[Taken] = field(default_factory=list)

    def take(self, key: Key, request: Request, now: float) -> None:
        """Record a request and check it against the laws."""
        sent = self.sent.setdefault(key, Sent())
        number = int(request.headers["hooktide-attempt"])
        self.log.append(Taken(key, now, number, request.url))
        if self.bodies.setdefault(key[0], request.body) != request.body:
            self._violated("I2: another body", key)
        if sent.heard:
            self._violated("I3: sent again after a success was heard of", key)
        if self.recorded(key):
            self._violated("I3: sent again after its end was recorded", key)
        if self.unrecorded(key):
            self._violated("sent before it was recorded, although a worker before may have sent it", key)
        if self.overtakes(key):
            self._violated("L5: sent before an earlier event of its key has ended", key)
        if sent.under_way:
            self._violated("sent while it is under way", key)
        due_at = sent.answered_at + max(sent.wait_s, sent.asked_s)
        # What failed at a former sink is due at once at the present one.
        is_bound = request.url == sent.url and sent.began_at > self.moved_by(key[1])
        if is_bound and number == sent.attempts + 1 and now < due_at:
            self._violated(f"I5: attempt {number} began {due_at - now:.3f} s early", key)
        if now < self.throttled_until.get((key[1], request.url), 0.0):
            self._violated("sent while the endpoint had asked for a pause", key)
        self._hold_against_the_registry(key, request.url)
        sent.attempts, sent.under_way, sent.url, sent.began_at = number, True, request.url, now

    def _hold_against_the_registry(self, key: Key, url: str) -> None:
        if self.silenced(key[1]):
            self._violated("sent although the subscription does not want it", key)
        if self.unproven():
            self._violated("sent after a freeze, before the registry was asked", key)
        if self.elsewhere(key[1], url):
            self._violated(f"sent to {url}, where the subscription wants nothing any more", key)

    def answer(self, key: Key) -> tuple[float, Answer]:
        """Return the endpoint's answer, and the seconds until it arrives."""
        mode = self.modes.get(key[1], Mode.OK) if key[0] not in self.refused else Mode.FAILING
        if mode is Mode.FLAKY:
            mode = self.chance.choice((Mode.OK, Mode.SLOW, Mode.FAILING, Mode.FAILING, Mode.THROTTLING))
        quick = self.chance.expovariate(200)
        match mode:
            case Mode.OK:
                return quick, Answer(Outcome.DELIVERED, 200, "", b"", "")
            case Mode.SLOW:
                return self.slow_s or self.chance.uniform(0.03, 2.0), Answer(Outcome.DELIVERED, 204, "", b"", "")
            case Mode.FAILING | Mode.GONE:
                return quick, _refusal(500 if mode is Mode.FAILING else 410)
            case Mode.LATE_GONE | Mode.LATE_THROTTLING:
                return LATE_S, _refusal(410) if mode is Mode.LATE_GONE else _refusal(429, LONG_S)
            case Mode.THROTTLING:
                wait_s = self.chance.randint(1, 8)
                return quick, _refusal(self.chance.choice((429, 503)), wait_s)
            case _:
                return TIMEOUT_S, Answer(Outcome.TIMEOUT, 0, "no answer within the time limit", b"", "")

    def heard(self, key: Key, answer: Answer, now: float) -> None:
        """Record that a worker has received an answer."""
        sent = self.sent[key]
        sent.under_way = False
        sent.answered_at = now
        retry_after_s = float(answer.retry_after or 0)
        delay_s = self.delays_s[min(sent.attempts, len(self.delays_s)) - 1]
        # A retry is due in whole milliseconds.
        sent.wait_s, sent.asked_s = 0.5 * delay_s - 0.001, retry_after_s - 0.001
        sent.given_up = sent.attempts > len(self.delays_s)
        if answer.outcome is Outcome.DELIVERED:
            sent.heard = True
            sent.successes += 1
        elif retry_after_s:
            sink = (key[1], sent.url)
            self.throttled_until[sink] = max(self.throttled_until.get(sink, 0.0), now + retry_after_s)

    def forget_pauses(self, subscription_id: str) -> None:
        """Forget every pause that a subscription's sinks have asked for."""
        for sink in [each for each in self.throttled_until if each[0] == subscription_id]:
            del self.throttled_until[sink]

    def forget_waits(self) -> None:
        """Forget when attempts may begin at the earliest: the clock of the worker that starts now is ahead."""
        for sent in self.sent.values():
            sent.wait_s = sent.asked_s = 0.0

    def worker_ended(self) -> None:
        """Record that a worker has ended: it forgets every answer that it has not recorded."""
        self.throttled_until.clear()
        for sent in self.sent.values():
            sent.heard = sent.under_way = sent.given_up = False

    @property
    def requests(self) -> int:
        """The number of requests."""
        return len(self.log)

    def _violated(self, law: str, key: Key) -> None:
        self.violations.append(f"{law}: event {key[0]}, subscription {key[1]}")


def _refusal(status: int, wait_s: int = 0) -> Answer:
    return Answer(Outcome.STATUS, status, f"the server answered {status}", b"oh", str(wait_s or ""))


class TransportOfTests:
    """A `Transport` to the endpoints, for one worker."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._loop = asyncio.get_running_loop()
        self._timers: set[asyncio.TimerHandle] = set()
        self._begun = 0
        self._waiting: deque[_Flight] = deque()
        self._abandoned = False
        self.under_way = 0
        """How many requests have no answer yet, whether they have begun or not."""
        self.under_way_of: dict[str, int] = {}

    def send(self, request: Request, done: Callable[[Answer], None]) -> None:
        """See `Transport.send`."""
        if self._abandoned:
            return
        key = (request.headers["webhook-id"], request.headers["hooktide-subscription-id"])
        assert request.subscription_id == key[1]
        self.under_way += 1
        self.under_way_of[key[1]] = self.under_way_of.get(key[1], 0) + 1
        self._waiting.append(_Flight(key, request, done))
        self._take_turns()

    def withdraw(self, subscription_id: str) -> None:
        """See `Transport.withdraw`."""
        self._withdraw([each for each in self._waiting if each.key[1] == subscription_id])

    def withdraw_all(self, owner: str = "") -> None:
        """See `Transport.withdraw_all`."""
        self._withdraw([each for each in self._waiting if not owner or each.request.owner == owner])

    def _withdraw(self, flights: list["_Flight"]) -> None:
        for flight in flights:
            self._waiting.remove(flight)
            self._call_later(0.0, partial(self._end, flight, WITHDRAWN))

    def abandon(self) -> None:
        """End, and leave all requests without an answer; no further one leaves."""
        if self._abandoned:
            return
        self._abandoned = True
        for timer in self._timers:
            timer.cancel()
        self._waiting.clear()
        self._endpoints.worker_ended()

    def _take_turns(self) -> None:
        while self._waiting and self._begun < self._endpoints.at_once:
            may_begin = self._waiting[0].request.may_begin
            if may_begin is not None and not may_begin():
                return
            self._begun += 1
            flight = self._waiting.popleft()
            self._endpoints.take(flight.key, flight.request, self._loop.time())
            delay_s, answer = self._endpoints.answer(flight.key)
            self._call_later(delay_s, partial(self._hear, flight, answer))

    def _hear(self, flight: "_Flight", answer: Answer) -> None:
        self._begun -= 1
        self._endpoints.heard(flight.key, answer, self._loop.time())
        self._end(flight, answer)
        self._take_turns()

    def _end(self, flight: "_Flight", answer: Answer) -> None:
        self.under_way -= 1
        self.under_way_of[flight.key[1]] -= 1
        flight.done(answer)

    def _call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            call()

        timer = self._loop.call_later(delay_s, run)
        self._timers.add(timer)


@dataclass(eq=False)
class _Flight:
    """A request, and the callback for its answer."""

    key: Key
    request: Request
    done: Callable[[Answer], None]
