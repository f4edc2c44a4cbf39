"""Receiver: a real HTTP server with consumers' endpoints, which answer as a test says and remember each request."""

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

_TURNS = 10
_BODY_BYTES_MAX = 8 * 1024 * 1024


@dataclass(slots=True)
class Arrival:
    """One request."""

    endpoint: str
    event_id: str
    at: float
    """The monotonic time of the answer, in seconds."""
    status: int
    body: bytes
    headers: dict[str, str]
    verified: bool
    began_at: float = 0.0
    """The monotonic time at which the request's head had arrived, in seconds."""

    @property
    def path(self) -> str:
        """The path of its URL."""
        return f"/{self.endpoint}"

    @property
    def attempt(self) -> int:
        """The attempt number that its header states."""
        return int(self.headers["hooktide-attempt"])


@dataclass(slots=True)
class Endpoint:
    """One callback URL and its behaviour."""

    name: str
    url: str
    secrets: list[str] = field(default_factory=list)
    """The signing secrets, one of which must verify; empty: the endpoint verifies nothing."""
    status: Callable[[], int] = lambda: 200
    delay_s: float = 0.0
    gate: asyncio.Event | None = None
    """If set, no request is answered before this event is set."""
    keep_bodies: bool = True
    arrivals: list[Arrival] = field(default_factory=list)
    begun: int = 0
    """How many requests have begun, answered or not."""
    _accepted: set[str] = field(default_factory=set)

    def accepted(self) -> set[str]:
        """Return the ids of the events that got a 2xx."""
        return self._accepted

    def add(self, arrival: Arrival) -> None:
        """Record an arrival."""
        self.arrivals.append(arrival)
        if 200 <= arrival.status < 300:
            self._accepted.add(arrival.event_id)

    def by_event(self) -> dict[str, list[Arrival]]:
        """Return the arrivals by event id, in order."""
        found: dict[str, list[Arrival]] = {}
        for arrival in self.arrivals:
            found.setdefault(arrival.event_id, []).append(arrival)
        return found


class Receiver:
    """Serves endpoints, one at each path, on a port of its own; a test may take it down and bring it back at the same port."""

    def __init__(self, port: int = 0) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.answer: Callable[[Arrival], int] | None = None
        """If set, it decides the status of each answer, in place of the endpoint's own `status`."""
        self.port = port
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.down()

    async def up(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.router.add_route("*", "/{name:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def down(self) -> None:
        """Stop listening and cut off all requests under way."""
        if self._runner is not None:
            for site in tuple(self._runner.sites):
                await site.stop()
            # A connection that was accepted at the last moment needs some turns of the loop; before them, the clean-up does not know
            # it.
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            await self._runner.cleanup()
            self._runner = None

    def endpoint(self, name: str) -> Endpoint:
        """Return an endpoint; make it if it does not exist."""
        if name not in self.endpoints:
            self.endpoints[name] = Endpoint(name, self.url(f"/{name}"))
        return self.endpoints[name]

    def url(self, path: str = "/hook") -> str:
        """Return the URL of a path; the endpoint there need not be made first."""
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def arrivals(self) -> list[Arrival]:
        """All requests that endpoints remember, in the order of their answers."""
        return sorted((arrival for endpoint in self.endpoints.values() for arrival in endpoint.arrivals), key=lambda each: each.at)

    async def _take(self, request: web.Request) -> web.Response:
        endpoint, began_at = self.endpoint(request.match_info["name"]), time.monotonic()
        endpoint.begun += 1
        body = await request.read()
        if endpoint.gate is not None:
            await endpoint.gate.wait()
        if endpoint.delay_s:
            await asyncio.sleep(endpoint.delay_s)
        headers = {name.lower(): value for name, value in request.headers.items()}
        verified = any(_verifies(secret, body, headers) for secret in endpoint.secrets)
        kept = body if endpoint.keep_bodies else hashlib.sha256(body).digest()
        arrival = Arrival(endpoint.name, headers.get("webhook-id", ""), time.monotonic(), 0, kept, headers, verified, began_at)
        arrival.status = endpoint.status() if self.answer is None else self.answer(arrival)
        endpoint.add(arrival)
        return web.Response(status=arrival.status)


def _verifies(secret: str, body: bytes, headers: dict[str, str]) -> bool:
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


def flapping(rng: random.Random, failing: float) -> Callable[[], int]:
    """Return a behaviour that answers a share of the requests with 500."""
    return lambda: 500 if rng.random() < failing else 200


def failing_first(count: int, status: int = 500) -> Callable[[], int]:
    """Return a behaviour that fails `count` times, then succeeds."""
    answers: Iterator[int] = iter([status] * count)
    return lambda: next(answers, 200)
