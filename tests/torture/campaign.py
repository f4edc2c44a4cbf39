"""Campaign: runs a system under a seeded load while anything may be killed, and checks the invariants afterwards."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
import grpc
import psutil
from hooktide.delivery.v1 import delivery_pb2 as pb

from tests.faults.serve import DIRECTORY
from tests.faults.shim import SHADOWED
from tests.support.consumers import Consumer, new_consumer
from tests.support.service_spawner import Spawner
from tests.support.system.processes import QUICK, SERVICES, System
from tests.support.webhook_receivers.receiver import Receiver
from tests.torture.checking_receiver import Evidence, Witness
from tests.torture.emitter_process import EMIT_TIMEOUT_S
from tests.torture.invariants import Course, Pause, Subscribed, judge_arrivals, judge_attempts, judge_ledger, judge_pauses, note_finished
from tests.torture.load import Load, Rates
from tests.torture.planned_events import CONSUMERS, PATTERNS, Pattern, Plan

EMITTER = "emitter"
VICTIMS = (*SERVICES, EMITTER)
DRAINED_WITHIN_S = 60.0
# The ledger holds an accepted delivery a moment after its acceptance.
RECORDED_WITHIN_S = 5.0
_ATTEMPTS_SAMPLED = 300
_PAGE = 200

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of a campaign."""

    acknowledged: int
    due: int
    repeated: int
    """How many events came again after a 2xx, each excused by a crash or an unknown outcome."""
    pauses: int
    """How many pauses a start of delivery fell into."""
    attempts: int
    broken: list[str]


class Campaign:
    """One system with its receivers, its load and the record of what happened to it; made by `running_campaign`."""

    def __init__(self, system: System, told: Path, receivers: tuple[Receiver, Receiver], seed: int, rates: Rates) -> None:
        self.system = system
        self.told = told
        """The directory that tells services when to die, and what disk and clock they have."""
        self.receivers = receivers
        self.seed = seed
        self.rng = random.Random(seed)
        self.course = Course([float(each) for each in system.settings["HOOKTIDE_DELIVERY_RETRY_DELAYS_SECONDS"].split(",")])
        self.evidence = Evidence(Plan(seed), [])
        self.load = Load(system, self.evidence.plan, rates, self.course, self.evidence)
        self.kills = dict.fromkeys(VICTIMS, 0)
        self._consumers: list[Consumer] = []

    async def prepare(self) -> None:
        """Make the consumers and their lasting subscriptions, a third of them at the receiver that may be cut off."""
        for number in range(CONSUMERS):
            self._consumers.append(await new_consumer(self.system, f"consumer {number}"))
        self.evidence.consumers = [consumer.id for consumer in self._consumers]
        for number, pattern in enumerate(PATTERNS):
            await self.subscribe(f"lasting-{number}", pattern, self.receivers[number % 3 == 0])

    # Subscriptions

    async def subscribe(self, name: str, pattern: Pattern, receiver: Receiver, *, from_beginning: bool = False) -> Subscribed:
        """Subscribe a new endpoint, to the past events too if it is `from_beginning`; ask again until a request succeeds."""
        witness = Witness(name, receiver.endpoint(name).url, pattern=pattern, evidence=self.evidence)
        receiver.endpoints[name] = witness
        consumer = self._consumers[pattern.consumer]
        subscribed = Subscribed(witness)
        self.course.subscribed.append(subscribed)
        config = {"start": "beginning"} if from_beginning else {}
        subscribed.id = await eventually(lambda: consumer.subscribe(witness, list(pattern.types), source=pattern.source, config=config))
        subscribed.since = 0.0 if from_beginning else time.monotonic()
        return subscribed

    async def unsubscribe(self, subscribed: Subscribed) -> None:
        """Delete a subscription; ask again until a request succeeds."""
        key = self._consumers[subscribed.witness.pattern.consumer].key

        async def delete() -> int:
            status, answer = await self.system.call("DELETE", f"/v1/subscriptions/{subscribed.id}", key)
            assert status in {204, 404}, answer  # 404: an earlier request deleted it, and its answer was lost
            return status

        subscribed.closing = time.monotonic()
        await eventually(delete)
        subscribed.until = time.monotonic()

    # Pauses

    @contextlib.asynccontextmanager
    async def pause(self, path: str, subscribed: Sequence[Subscribed], key: str = "") -> AsyncIterator[None]:
        """Pause the resource at this path, and so these subscriptions, while the body runs; ask again until a request succeeds."""

        async def call(verb: str) -> None:
            status, answer = await self.system.call("POST", f"{path}/{verb}", key or self.system.first.admin)
            assert status == 200, answer

        await eventually(lambda: call("pause"))
        answered_at = time.monotonic()
        try:
            yield
        finally:
            endpoints = frozenset(each.witness.name for each in subscribed)
            self.course.pauses.append(Pause(answered_at, time.monotonic(), endpoints))
            await eventually(lambda: call("resume"))

    def of_consumer(self, number: int) -> tuple[str, str, list[Subscribed]]:
        """Return a consumer's id, its key, and the subscriptions that it has."""
        living = [each for each in self.course.subscribed if each.id and each.closing == float("inf")]
        return self._consumers[number].id, self._consumers[number].key, [each for each in living if each.witness.pattern.consumer == number]

    # Faults

    def kill(self, victim: str) -> None:
        """Kill a service or the emitter's process; it stays down until `start_again`."""
        if victim == EMITTER:
            self.load.kill_process()
        else:
            workers = self.workers() if victim == "delivery" else []
            self.system.kill(victim)
            for worker in workers:
                _end(worker)
        self.note_kill(victim)

    def workers(self) -> list[psutil.Process]:
        """Return the processes of delivery's workers; none if it is one process."""
        process = self.system.services["delivery"].process
        return [] if process is None or process.poll() is not None else psutil.Process(process.pid).children()

    def kill_worker(self) -> None:
        """Kill one of several delivery workers, which its parent starts again."""
        if workers := self.workers():
            _end(self.rng.choice(workers))
            self.note_kill("delivery")
            self.course.delivery_ends.append(time.monotonic())
            self.course.delivery_starts.append(time.monotonic())

    def note_kill(self, victim: str) -> None:
        """Record that a process was killed."""
        self.kills[victim] += 1
        if victim == "delivery":
            self.course.delivery_ends.append(time.monotonic())

    def start_again(self, victim: str) -> None:
        """Start a killed process, without waiting until it is ready."""
        if victim == "delivery":
            # Until now a request of the old process may have waited unread at its endpoint.
            self.course.delivery_ends.append(time.monotonic())
            self.course.delivery_starts.append(time.monotonic())
        if victim == EMITTER:
            self.load.start_process_again()
        else:
            self.system.launch(victim)

    async def restart(self, service: str) -> None:
        """Start a killed service and wait until it is ready."""
        self.start_again(service)
        await self.system.ready(service)

    def check_alive(self) -> None:
        """Fail if a process has ended without being killed."""
        for name in SERVICES:
            assert self.system.running(name), f"{name} has ended by itself:\n{self.system.log(name)[-4000:]}"
        assert not self.load.process_has_ended(), "the emitter has ended by itself"

    # Judgement

    async def heal(self) -> None:
        """Let every endpoint answer again, and wait until every service is ready."""
        for subscribed in self.course.subscribed:
            be_well(subscribed.witness)
        self.check_alive()
        for name in SERVICES:
            await self.system.ready(name)

    async def drained(self) -> None:
        """Wait until every due event is accepted and no delivery is pending."""
        end = time.monotonic() + DRAINED_WITHIN_S
        while (missing := self._missing()) or await self.pending():
            assert time.monotonic() < end, f"I8: not drained in {DRAINED_WITHIN_S} s (seed {self.seed}): {missing[:5]} …"
            self.check_alive()
            await asyncio.sleep(0.05)

    def _missing(self) -> list[str]:
        """Return some deliveries to lasting subscriptions that are due and not accepted yet."""
        for subscribed in self.course.subscribed:
            if subscribed.closing == float("inf"):
                accepted, wants = subscribed.witness.accepted(), subscribed.witness.pattern.wants
                missing = [
                    f"{each.event_id} ({each.event.id}) → {subscribed.witness.name}"
                    for each in self.course.emitted.values()
                    if each.event_id not in accepted and each.began_at > subscribed.since and wants(each.event)
                ]
                if missing:
                    return missing
        return []

    async def pending(self) -> list[pb.Delivery]:
        """Return some of the unfinished deliveries."""
        request = pb.ListDeliveriesRequest(consumer_id="*", state=pb.DELIVERY_STATE_PENDING, page_size=5)
        answer = await self.system.deliveries.ListDeliveries(request, metadata=self.system.metadata, wait_for_ready=True)
        return list(answer.deliveries)

    async def look(self, pages: int = 1) -> None:
        """Record the states of the newest finished deliveries; do nothing if the ledger is unreachable."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            for breach in note_finished(self.course, [each async for each in self._deliveries(pages, wait_for_ready=False)]):
                self.evidence.violated(*breach.split(": ", 1))

    async def _deliveries(self, pages: int = 1 << 30, *, wait_for_ready: bool = True) -> AsyncIterator[pb.Delivery]:
        token = ""
        for _ in range(pages):
            request = pb.ListDeliveriesRequest(consumer_id="*", page_size=_PAGE, page_token=token)
            answer = await self.system.deliveries.ListDeliveries(request, metadata=self.system.metadata, wait_for_ready=wait_for_ready)
            for delivery in answer.deliveries:
                yield delivery
            token = answer.next_page_token
            if not token:
                return

    async def judge(self) -> Judgement:
        """Check everything that was seen, and everything in the ledger, against the invariants."""
        for subscribed in self.course.subscribed:
            subscribed.witness.judge_signatures()
        broken: list[str] = []
        end = time.monotonic() + RECORDED_WITHIN_S
        while True:
            first = [each async for each in self._deliveries()]
            broken += note_finished(self.course, first)
            due, of_ledger = judge_ledger(self.course, first)
            if not of_ledger or time.monotonic() > end:
                break
            await asyncio.sleep(0.05)
        repeated, of_arrivals = judge_arrivals(self.course)
        pauses, of_pauses = judge_pauses(self.course)
        retried = [each for each in first if each.attempt_count > 1]
        for delivery in self.rng.sample(retried, min(len(retried), _ATTEMPTS_SAMPLED)):
            request = pb.GetDeliveryRequest(consumer_id="*", id=delivery.id)
            answer = await self.system.deliveries.GetDelivery(request, metadata=self.system.metadata)
            broken += judge_attempts(self.course, answer.delivery)
        again = [each async for each in self._deliveries()]
        broken += note_finished(self.course, again)
        if len(first) != len(again):
            broken.append(f"I8: the ledger went on from {len(first)} to {len(again)} deliveries after everything was accepted")
        return Judgement(
            acknowledged=len(self.course.emitted),
            due=due,
            repeated=repeated,
            pauses=pauses,
            attempts=self.evidence.arrivals,
            broken=[*self.evidence.violations, *of_ledger, *of_arrivals, *of_pauses, *broken],
        )


async def eventually(step: Callable[[], Awaitable[_Result]]) -> _Result:
    """Repeat a REST step while services are down."""
    end = time.monotonic() + EMIT_TIMEOUT_S
    while True:
        try:
            return await step()
        except (AssertionError, aiohttp.ClientError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.05)


def be_well(witness: Witness) -> None:
    """Let an endpoint answer at once with 200."""
    witness.status, witness.delay_s = _fine, 0.0


def _fine() -> int:
    return 200


def _end(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def running_campaign(
    directory: Path, spawner: Spawner, seed: int, rates: Rates, *, spoilt: bool = False, workers: int = 1
) -> AsyncIterator[Campaign]:
    """Run a system with its receivers and lasting subscriptions; if `spoilt`, on a disk that may lose what is not synced."""
    # A receiver logs errors when a test takes it down in the middle of answers.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    told = directory / "faults"
    told.mkdir(parents=True)
    extra = {DIRECTORY: str(told), **({SHADOWED: str(directory / "data")} if spoilt else {})}
    # A lane goes behind after few events, so that processes are killed while ranges are opened, read and ended.
    settings = {**QUICK, "HOOKTIDE_DELIVERY_LANE_PENDING_MAX": "5", "HOOKTIDE_DELIVERY_WORKERS": str(workers)}
    system = System(directory / "data", settings, module="tests.faults.serve", extra=extra, spawn=spawner.spawn)
    async with Receiver() as steady, Receiver() as cut_off:
        try:
            await system.start()
            campaign = Campaign(system, told, (steady, cut_off), seed, rates)
            await campaign.prepare()
            yield campaign
        finally:
            await system.close()
