"""Bare client: a transport with nothing around it. Prints requests a second."""

import asyncio
import json
import os
import sys
import time
from contextlib import AbstractAsyncContextManager

import uvloop

from services.delivery.envelope import structured
from services.delivery.exchange import Limits
from services.delivery.transport import Answer, Request, Transport
from services.delivery.transport_pycurl import open_pycurl_transport
from services.egress.policy import EgressPolicy
from tests.bench.transport_aiohttp import open_aiohttp_transport
from tests.bench.world import event

_UNDER_WAY = 256


def opened(name: str) -> AbstractAsyncContextManager[Transport]:
    """Return a transport, to be entered."""
    policy = EgressPolicy(allow=["http", "127.0.0.0/8"])
    if name == "aiohttp":
        return open_aiohttp_transport(policy, timeout_s=15, connect_timeout_s=5, connections_max=_UNDER_WAY)
    limits = Limits(timeout_s=15, connect_timeout_s=5, first_byte_timeout_s=15, connections_max=_UNDER_WAY, host_connections_max=128)
    return open_pycurl_transport(policy, limits)


async def main(name: str, url: str, count: int) -> float:
    """Return requests a second, as many under way as the delivery service has."""
    body = structured(event(0).SerializeToString())
    headers = {
        "content-type": "application/cloudevents+json",
        "webhook-id": "bare",
        "webhook-timestamp": "1",
        "webhook-signature": "v1," + "a" * 44,
    }
    request = Request(f"{url}/bare", headers, body)
    ended, left, sent = asyncio.Event(), count, 0
    async with opened(name) as transport:

        def done(answer: Answer) -> None:
            nonlocal left, sent
            assert answer.status == 200, answer
            left -= 1
            if sent < count:
                sent += 1
                transport.send(request, done)
            if not left:
                ended.set()

        began = time.perf_counter()
        for _ in range(min(_UNDER_WAY, count)):
            sent += 1
            transport.send(request, done)
        await ended.wait()
        return count / (time.perf_counter() - began)


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[2])})
    sys.stdout.write(json.dumps(uvloop.run(main(sys.argv[1], sys.argv[3], int(sys.argv[4])))))
