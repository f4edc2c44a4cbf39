"""Transport over wreq, correct enough to be measured and for nothing else: one task per request.

It sends headers and body, keeps to the time limits, verifies certificates, and reports the status. It judges URLs but
not the addresses that names lead to, bounds no answer, and tells the kinds of failure apart only roughly.
"""

import asyncio
import contextlib
import datetime as dt
import importlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from services.delivery.model import Outcome
from services.delivery.transport.protocol import RESPONSE_BYTES_KEPT, Answer, Request
from services.egress.policy import EgressPolicy

_OK = range(200, 300)
_IDLE_S = 30.0


class WreqTransport:
    """Sends by wreq; made by `open_wreq_transport`."""

    def __init__(self, wreq: Any, client: Any, group: asyncio.TaskGroup, policy: EgressPolicy) -> None:
        self._client = client
        self._methods = wreq.Method
        self._outcomes: dict[type[BaseException], Outcome] = {
            wreq.exceptions.TimeoutError: Outcome.TIMEOUT,
            wreq.exceptions.TlsError: Outcome.TLS,
            wreq.exceptions.ConnectionError: Outcome.CONNECT,
            wreq.exceptions.ConnectionResetError: Outcome.RESET,
        }
        self._group = group
        self._policy = policy
        self._waiting: dict[asyncio.Task[None], Callable[[Answer], None]] = {}

    def send(self, request: Request, done: Callable[[Answer], None]) -> None:
        """Begin to send; see `Transport.send`."""
        task = self._group.create_task(self._send(request))
        self._waiting[task] = done
        task.add_done_callback(self._cut_off)

    def withdraw(self, subscription_id: str) -> None:
        """See `Transport.withdraw`; what waits for a connection here has begun."""

    def cut_off(self) -> None:
        """End what is under way."""
        for task in list(self._waiting):
            task.cancel()

    def _cut_off(self, task: asyncio.Task[None]) -> None:
        done = self._waiting.pop(task, None)
        if done is not None:
            done(Answer(Outcome.RESET, 0, "the service stopped before the answer came", b"", ""))

    async def _send(self, request: Request) -> None:
        why = self._policy.check_url(request.url)
        try:
            answer = await self._exchange(request) if why is None else Answer(Outcome.BLOCKED, 0, why, b"", "")
        except Exception as error:  # noqa: BLE001 - wreq's errors have no class of their own in common
            outcome = self._outcomes.get(type(error), Outcome.PROTOCOL)
            answer = Answer(outcome, 0, f"the request failed ({type(error).__name__})", b"", "")
        task = asyncio.current_task()
        assert task is not None
        self._waiting.pop(task)(answer)

    async def _exchange(self, request: Request) -> Answer:
        more: dict[str, object] = {} if request.timeout_s is None else {"timeout": dt.timedelta(seconds=request.timeout_s)}
        method = getattr(self._methods, request.method)
        async with self._client.request(method, request.url, headers=request.headers, body=request.body, **more) as response:
            status: int = response.status.as_int()
            body = b"" if response.content_length == 0 else bytes(await response.bytes())
        if status in _OK:
            return Answer(Outcome.DELIVERED, status, "", body if request.whole else b"", "")
        return Answer(Outcome.STATUS, status, f"the endpoint answered {status}", body[:RESPONSE_BYTES_KEPT], "")


@contextlib.asynccontextmanager
async def open_wreq_transport(
    policy: EgressPolicy, *, timeout_s: float, connect_timeout_s: float, connections_max: int
) -> AsyncIterator[WreqTransport]:
    """Open the connection pool; raises `ModuleNotFoundError` where wreq is not installed."""
    # By its name, since type checkers must do without it too.
    wreq: Any = importlib.import_module("wreq")
    roots = ssl.get_default_verify_paths().cafile
    client = wreq.Client(
        timeout=dt.timedelta(seconds=timeout_s),
        connect_timeout=dt.timedelta(seconds=connect_timeout_s),
        pool_idle_timeout=dt.timedelta(seconds=_IDLE_S),
        pool_max_size=connections_max,
        http1_only=True,
        no_proxy=True,
        redirect=wreq.redirect.Policy.none(),
        tls_verify=True if roots is None else Path(roots),
        tls_min_version=wreq.TlsVersion.TLS_1_2,
        **dict.fromkeys(("gzip", "brotli", "deflate", "zstd"), False),
    )
    try:
        async with asyncio.TaskGroup() as group:
            transport = WreqTransport(wreq, client, group, policy)
            try:
                yield transport
            finally:
                transport.cut_off()
    finally:
        client.close()
