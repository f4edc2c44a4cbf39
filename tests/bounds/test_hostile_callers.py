import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hooktide.ingest.v1 import ingest_pb2

from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from tests.bench.attacker import INGEST
from tests.support.memory import MB, resident_bytes, sampled
from tests.support.numbered_events import numbered_event
from tests.support.system.processes import ROOT, System
from tests.support.waiting import PATIENCE_S, until

_CONNECTIONS, _FOR_S, _PAUSE_S = 200, 8.0, 0.05
_GROWN_MAX, _LEFT_MAX = 100 * MB, 50 * MB
# Far more than an answer takes: the bench measures how long calls take beside an attack.
_ANSWER_WITHIN_S = 10.0

_numbers = itertools.count()


@pytest_asyncio.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """The services that publishing needs."""
    running = System(tmp_path_factory.mktemp("hostile"), {})
    try:
        await running.start(("subscription", "ingest"))
        yield running
    finally:
        await running.close()


def attacker(system: System, kind: str) -> subprocess.Popen[str]:
    """Start hostile clients of one kind, in a process of their own."""
    host, _, port = system.services["ingest"].listen.rpartition(":")
    core = max(os.sched_getaffinity(0))
    job = {"core": core, "kind": kind, "host": host, "port": int(port), "connections": _CONNECTIONS, "for_s": _FOR_S}
    command, pipe = [sys.executable, "-m", "tests.bench.attacker"], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, text=True)  # noqa: S603 - ours
    assert process.stdin is not None
    process.stdin.write(json.dumps(job))
    process.stdin.close()
    process.stdin = None
    return process


@pytest.mark.slow
@pytest.mark.parametrize("kind", INGEST)
async def test_hostile_callers_take_little_and_refuse_nobody_an_answer(system: System, kind: str) -> None:
    """With 200 hostile connections, memory grows by little and comes back, and every honest call gets an answer."""
    metadata, answered, failed = service_metadata(system.first.emitter), 0, list[grpc.aio.AioRpcError]()
    before = resident_bytes(system, "ingest")
    async with sampled(system, ("ingest",)) as samples:
        hostile = attacker(system, kind)
        try:
            ends_at = time.monotonic() + _FOR_S
            while time.monotonic() < ends_at:
                request = ingest_pb2.PublishRequest(event=numbered_event(next(_numbers), 200, run=f"hostile-{kind}-"))
                try:
                    await system.ingest.Publish(request, metadata=metadata, timeout=_ANSWER_WITHIN_S)
                    async with open_channel(system.services["ingest"].listen) as fresh:
                        check = health_pb2_grpc.HealthStub(fresh).Check
                        await check(health_pb2.HealthCheckRequest(), timeout=_ANSWER_WITHIN_S, wait_for_ready=True)
                    answered += 1
                except grpc.aio.AioRpcError as error:
                    failed.append(error)
                await asyncio.sleep(_PAUSE_S)
            opened, _ = json.loads((await asyncio.to_thread(hostile.communicate))[0])
        finally:
            hostile.kill()
            hostile.wait()
        assert opened >= _CONNECTIONS
        assert not failed
        assert answered > 1
        assert samples.most("ingest") - before < _GROWN_MAX
        await until(lambda: resident_bytes(system, "ingest") - before < _LEFT_MAX, PATIENCE_S, "memory is back")
