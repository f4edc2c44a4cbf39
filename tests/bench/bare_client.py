"""Bare client: a transport alone, which sends what the delivery service would send.

Reads a `Job` as JSON from standard input; prints a `Speed` as JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

import uvloop

from services.delivery.transport.protocol import Answer, Request, Transport
from services.egress.policy import EgressPolicy
from services.runtime.configuration.reload import Reloadable
from services.runtime.configuration.settings import DeliverySettings
from services.runtime.configuration.settings_reader import read_settings
from tests.bench.openers import opener

_OK = 200


class Job(NamedTuple):
    """The requests to send."""

    transport: str
    urls: list[str]
    """The sinks, in turn; all requests have the same headers and body."""
    headers: Mapping[str, str]
    body: str
    measured: int
    """The number of measured requests."""
    warm: int
    """The number of requests before them, which open the connections."""


class Speed(NamedTuple):
    """The measured speed."""

    per_s: float
    cpu_us: float
    """The CPU time of the sending process for each request, in µs."""


def under_way(settings: DeliverySettings, sinks: int) -> int:
    """Return how many attempts the delivery service has under way for a number of sinks, each of one subscription and host."""
    each = min(settings.delivery_lane_in_flight_max, settings.delivery_host_connections_max)
    return min(settings.delivery_in_flight_max, sinks * each)


async def send(transport: Transport, requests: list[Request], count: int, at_once: int) -> None:
    """Send `count` requests, `at_once` of them under way; return when all are answered, each with 200."""
    left, sent = count, 0
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def following() -> None:
        nonlocal sent
        if sent < count:
            sent += 1
            transport.send(requests[sent % len(requests)], done)

    def done(answer: Answer) -> None:
        nonlocal left
        left -= 1
        if ended.done():
            return
        if answer.status != _OK:
            ended.set_exception(AssertionError(f"{answer}"))
        elif left:
            following()
        else:
            ended.set_result(None)

    for _ in range(at_once):
        following()
    await ended


async def main(job: Job) -> Speed:
    """Do a job."""
    settings = read_settings(DeliverySettings)
    requests = [Request(url, job.headers, job.body.encode()) for url in job.urls]
    at_once = under_way(settings, len(job.urls))
    async with opener(job.transport)(EgressPolicy(settings.sink_allow), Reloadable(settings)) as transport:
        await send(transport, requests, job.warm, at_once)
        began, cpu_began = time.perf_counter(), time.process_time()
        await send(transport, requests, job.measured, at_once)
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    return Speed(job.measured / took_s, cpu_s / job.measured * 1e6)


if __name__ == "__main__":
    given = json.load(sys.stdin)
    os.sched_setaffinity(0, {given.pop("core")})
    sys.stdout.write(json.dumps(uvloop.run(main(Job(**given)))))
