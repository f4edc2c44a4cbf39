"""Sending: the real transport with the options of tests, and helpers that send one request through it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

from services.delivery.transport.exchange import Limits
from services.delivery.transport.http import HttpTransport, open_http_transport
from services.delivery.transport.protocol import Answer, Request, Transport
from services.delivery.transport.resolver import Lookup
from services.egress.policy import EgressPolicy
from tests.support.dns import no_names

LIMITS = Limits(timeout_s=15.0, connect_timeout_s=5.0, first_byte_timeout_s=15.0, connections_max=64, host_connections_max=32)
LOOPBACK = ("http", "127.0.0.0/8", "::1")
_ANSWERED_WITHIN_S = 60.0


@contextlib.asynccontextmanager
async def sending(
    *, allow: Sequence[str] = LOOPBACK, lookup: Lookup = no_names, proxy: str = "", roots: Path | None = None, **limits: float
) -> AsyncIterator[HttpTransport]:
    """Open a transport that may call this machine; `limits` are fields of `Limits`."""
    policy = EgressPolicy(allow=allow)
    made = replace(LIMITS, **limits)  # type: ignore[arg-type]  # the fields' own types
    async with open_http_transport(policy, made, proxy=proxy, lookup=lookup, roots=str(roots or "")) as transport:
        yield transport


def sent(transport: Transport, request: Request) -> asyncio.Future[Answer]:
    """Start to send; return a future for the answer."""
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    transport.send(request, future.set_result)
    assert not future.done(), "answered within send"
    return future


async def answer_to(transport: Transport, request: Request) -> Answer:
    """Send one request and wait for its answer."""
    return await asyncio.wait_for(sent(transport, request), _ANSWERED_WITHIN_S)


def post(url: str, body: bytes = b"{}", **headers: str) -> Request:
    """Return a webhook."""
    return Request(url, {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}, body)
