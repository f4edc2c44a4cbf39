"""Attacked: how long honest calls take beside hostile clients, by the kind of attack."""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hooktide.ingest.v1 import ingest_pb2

from tests.bench.attacker import INGEST, KINDS
from tests.bench.figures import Bar, Row, percentile, ratio
from tests.bench.load import event
from tests.bench.part import Part
from tests.bench.rounds import Extent, Steps
from tests.bench.world import LOAD_CORE, bench_system, quiet
from tests.support.consumers import Consumer, new_consumer
from tests.support.memory import MB, sampled
from tests.support.system.processes import ROOT, System

CONNECTIONS = 200
FOR_S = 6.0
_LEAD_S = 1.0
_PER_S = 25.0
_CALL_WITHIN_S = 20.0
_BACK_WITHIN_S = 60.0
_QUIET = "quiet"
_NAMES = ("subscription", "ingest", "gateway")


@dataclass(slots=True)
class Waits:
    """The latencies of honest calls in seconds, by what was called, and the calls that failed."""

    health: list[float] = field(default_factory=list)
    publish: list[float] = field(default_factory=list)
    rest: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Attack(NamedTuple):
    """The result of one kind of attack; times are 99th percentiles in seconds."""

    kind: str
    health_s: float
    publish_s: float
    rest_s: float
    failed: list[str]
    """Honest calls that were refused or not answered in time."""
    grown_mb: float
    """The largest growth of a service's memory during the attack."""
    left_mb: float
    """The growth that was left at most 60 s later."""
    calls: int
    """How many calls the hostile clients sent."""


class Attacked(NamedTuple):
    """One round: honest callers alone, then beside each kind of attack."""

    quiet: Attack
    attacks: list[Attack]

    def worst(self, of: Callable[[Attack], float]) -> float:
        """Return the largest value of a figure over the attacks."""
        return max(of(each) for each in self.attacks)


async def part(extent: Extent, steps: Steps) -> Part:
    """Measure; return the rows: of all kinds of attack, the worst."""
    rounds = await measure(extent, steps)
    at = f"{CONNECTIONS} hostile connections, the worst of {len(rounds[0].attacks)} kinds"
    health = [1000 * each.worst(lambda attack: attack.health_s) for each in rounds]
    publish = [(each.worst(lambda attack: attack.publish_s), each.quiet.publish_s) for each in rounds]
    rest = [(each.worst(lambda attack: attack.rest_s), each.quiet.rest_s) for each in rounds]
    grown = [each.worst(lambda attack: attack.grown_mb) for each in rounds]
    left = [each.worst(lambda attack: attack.left_mb) for each in rounds]
    failed = [each.worst(lambda attack: len(attack.failed)) for each in rounds]
    rows = [
        Row("health check while attacked, p99", at, tuple(health), Bar(250, at_least=False), " ms"),
        _slowed("honest publish while attacked ÷ quiet, p99", publish),
        _slowed("honest REST call while attacked ÷ quiet, p99", rest),
        Row("honest calls refused while attacked", at, tuple(failed), Bar(0, at_least=False)),
        Row("memory grown while attacked", at, tuple(grown), Bar(100, at_least=False), " MB"),
        Row("memory left at most 60 s later", at, tuple(left), Bar(50, at_least=False), " MB"),
    ]
    found = [{"quiet": each.quiet._asdict(), "attacks": [one._asdict() for one in each.attacks]} for each in rounds]
    return Part(rows, {"attacks": found})


def _slowed(what: str, pairs: Sequence[tuple[float, float]]) -> Row:
    attacked_ms, quiet_ms = ([1000 * each for each in times] for times in zip(*pairs, strict=True))
    return ratio(what, attacked_ms, quiet_ms, "ms", Bar(2, at_least=False))


async def measure(extent: Extent, steps: Steps, for_s: float = FOR_S) -> list[Attacked]:
    """Return the rounds; each has a system of its own, and each attack lasts `for_s` seconds."""
    for_s = for_s / 6 if extent.quick else for_s
    rounds = []
    for number in range(extent.rounds):
        steps.begin(f"attacks {number + 1}/{extent.rounds}", 1 + len(KINDS))
        async with bench_system() as system:
            steps.step(_QUIET)
            consumer = await new_consumer(system, "honest")
            await _probed(system, consumer, 1.0)
            alone = await _attack(system, consumer, "", for_s)
            found = []
            for kind in KINDS:
                steps.step(kind)
                found.append(await _attack(system, consumer, kind, for_s))
            rounds.append(Attacked(alone, found))
    return rounds


async def _attack(system: System, consumer: Consumer, kind: str, for_s: float) -> Attack:
    await quiet(system)
    async with sampled(system, _NAMES) as samples:
        before = samples.take()
        hostile = _attacker(system, kind, _LEAD_S + for_s + 0.5) if kind else None
        calls = 0
        try:
            await asyncio.sleep(_LEAD_S)
            waits = await _probed(system, consumer, for_s)
            if hostile is not None:
                answer, _ = await asyncio.to_thread(hostile.communicate)
                calls = json.loads(answer)[1]
        finally:
            if hostile is not None:
                hostile.kill()
                hostile.wait()
        grown = max(samples.most(name) - before[name] for name in _NAMES)
        ends_at = time.monotonic() + _BACK_WITHIN_S
        while (left := max(size - before[name] for name, size in samples.take().items())) > 10 * MB and time.monotonic() < ends_at:  # noqa: ASYNC110 - another process's memory
            await asyncio.sleep(0.5)
    health_s, publish_s, rest_s = (_p99(each) for each in (waits.health, waits.publish, waits.rest))
    return Attack(kind or _QUIET, health_s, publish_s, rest_s, waits.failed, grown / MB, left / MB, calls)


def _p99(times: Sequence[float]) -> float:
    return percentile(sorted(times) or [_CALL_WITHIN_S], 0.99)


def _attacker(system: System, kind: str, for_s: float) -> subprocess.Popen[str]:
    host, _, port = system.services["ingest" if kind in INGEST else "gateway"].listen.rpartition(":")
    job = {"core": LOAD_CORE, "kind": kind, "host": host, "port": int(port), "connections": CONNECTIONS, "for_s": for_s}
    command, pipe = [sys.executable, "-m", "tests.bench.attacker"], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, text=True)  # noqa: S603 - ours
    assert process.stdin is not None
    process.stdin.write(json.dumps(job))
    process.stdin.close()
    process.stdin = None
    return process


_numbers = itertools.count()


async def _probed(system: System, consumer: Consumer, for_s: float) -> Waits:
    """Make honest calls at a steady rate for some seconds."""
    waits = Waits()
    gateway, ingest = f"http://{system.services['gateway'].listen}", system.services["ingest"].listen
    emitter_key = (("authorization", f"Bearer {system.first.emitter}"),)
    fresh = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession() as http, aiohttp.ClientSession(connector=fresh) as probe:

        async def rest() -> None:
            headers = {"authorization": f"Bearer {consumer.key}"}
            async with http.get(f"{gateway}/v1/subscriptions?limit=5", headers=headers) as answer:
                await answer.read()
                answer.raise_for_status()

        async def health() -> None:
            # A health check opens a connection of its own each time.
            async with probe.get(f"{gateway}/healthz") as answer:
                answer.raise_for_status()
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(ingest, options=options) as channel:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_CALL_WITHIN_S)

        async def publish() -> None:
            made = event(next(_numbers), "attacked-")
            await system.ingest.Publish(ingest_pb2.PublishRequest(event=made), metadata=emitter_key, timeout=_CALL_WITHIN_S)

        async with asyncio.TaskGroup() as group:
            for call, taken in ((rest, waits.rest), (publish, waits.publish)):
                group.create_task(_steadily(call, taken, waits.failed, _PER_S, for_s))
            group.create_task(_steadily(health, waits.health, waits.failed, _PER_S / 2, for_s))
    return waits


async def _steadily(call: Callable[[], Awaitable[None]], taken: list[float], failed: list[str], per_s: float, for_s: float) -> None:
    """Start calls at a steady rate, whether or not earlier ones have ended; each latency counts from the time when the call was due."""
    began = time.monotonic()

    async def one(due: float) -> None:
        try:
            async with asyncio.timeout(_CALL_WITHIN_S):
                await call()
        except (grpc.aio.AioRpcError, aiohttp.ClientError, TimeoutError, OSError) as error:
            failed.append(f"{call.__name__}: {error!r}"[:200])
        taken.append(time.monotonic() - due)

    async with asyncio.TaskGroup() as group:
        for number in range(int(per_s * for_s)):
            due = began + number / per_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(one(due))
