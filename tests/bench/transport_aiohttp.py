"""Transport over aiohttp: pooled keep-alive connections, one task for each request.

The egress policy judges the URL before each request, and every address of its name when the name is looked up. It judges
the dialled address once more when the socket is made.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import TypedDict

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from services.delivery.transport.protocol import RESPONSE_BYTES_KEPT, RESPONSE_BYTES_MAX, Answer, Outcome, Request
from services.egress.policy import EgressPolicy
from services.runtime.logs import logger

_HEADER_BYTES_MAX = 16 * 1024
_IDLE_S = 30.0
_OK = range(200, 300)
_CUT_OFF = Answer(Outcome.RESET, 0, "the service stopped before the answer came", b"", "")


class _Limits(TypedDict, total=False):
    """The time limits of one request, if they differ from the general limits."""

    timeout: aiohttp.ClientTimeout


class BlockedError(OSError):
    """The URL, or an address of its name, may not be called; the message names no address that is not in the URL."""


class JudgingResolver(AbstractResolver):
    """Looks names up, and refuses a name if one of its addresses may not be dialled."""

    def __init__(self, policy: EgressPolicy, names: AbstractResolver) -> None:
        self._policy = policy
        self._names = names

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Return the addresses of a name; raise `BlockedError` if one of them is forbidden."""
        found = await self._names.resolve(host, port, family)
        why = self._policy.check_addresses([each["host"] for each in found])
        if why is not None:
            raise BlockedError(why)
        return found

    async def close(self) -> None:
        """Close the underlying resolver."""
        await self._names.close()


class AiohttpTransport:
    """Sends through aiohttp; made by `open_aiohttp_transport`."""

    def __init__(self, session: aiohttp.ClientSession, group: asyncio.TaskGroup, policy: EgressPolicy) -> None:
        self._session = session
        self._group = group
        self._policy = policy
        self._waiting: dict[asyncio.Task[None], Callable[[Answer], None]] = {}

    def send(self, request: Request, done: Callable[[Answer], None]) -> None:
        """Start to send; see `Transport.send`."""
        task = self._group.create_task(self._send(request))
        self._waiting[task] = done
        task.add_done_callback(self._cut_off)

    def withdraw(self, subscription_id: str) -> None:
        """See `Transport.withdraw`; here a request that waits for a connection has already begun."""

    def withdraw_all(self, owner: str = "") -> None:
        """See `Transport.withdraw_all`."""

    def cut_off(self) -> None:
        """Cut off all requests under way."""
        for task in list(self._waiting):
            task.cancel()

    def _cut_off(self, task: asyncio.Task[None]) -> None:
        """Answer for a cancelled task, even if the task never started."""
        done = self._waiting.pop(task, None)
        if done is not None:
            done(_CUT_OFF)

    async def _send(self, request: Request) -> None:
        try:
            answer = await self._exchange(request)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            answer = _failed(error)
        except Exception as error:  # noqa: BLE001 - whatever an endpoint has answered must not end the service
            logger().exception("attempt.fault", subscription=request.headers.get("hooktide-subscription-id"))
            answer = _failed(error)
        task = asyncio.current_task()
        assert task is not None
        self._waiting.pop(task)(answer)

    async def _exchange(self, request: Request) -> Answer:
        why = self._policy.check_url(request.url)
        if why is not None:
            raise BlockedError(why)
        if request.tls is not None:
            return Answer(Outcome.TLS, 0, "certificates of a subscription's own are not supported by this transport", b"", "")
        limits: _Limits = {} if request.timeout_s is None else {"timeout": aiohttp.ClientTimeout(total=request.timeout_s)}
        async with self._session.request(
            request.method, URL(request.url, encoded=True), data=request.body, headers=request.headers, allow_redirects=False, **limits
        ) as response:
            body = await _bounded_body(response)
            retry_after = response.headers.get("retry-after", "")
            delivered = response.status in _OK
            outcome = Outcome.DELIVERED if delivered else Outcome.STATUS
            error = "" if delivered else f"the server answered {response.status}"
            if request.whole:
                return Answer(outcome, response.status, error, body, retry_after, _headers_of(response))
            return Answer(outcome, response.status, error, b"" if delivered else body[:RESPONSE_BYTES_KEPT], retry_after)


def _headers_of(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Return an answer's headers by their names in lower case; of a repeated header return the first."""
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        headers.setdefault(name.lower(), value)
    return headers


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    """Read up to the limit; a longer answer loses its connection, and its status counts."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) >= RESPONSE_BYTES_MAX:
            response.close()
            break
    return bytes(body)


def _failed(error: BaseException) -> Answer:
    match error:
        case BlockedError() | aiohttp.ClientConnectorError(os_error=BlockedError()):
            outcome, text = Outcome.BLOCKED, str(error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error)
        case aiohttp.ClientConnectorDNSError():
            outcome, text = Outcome.DNS, "the server's name could not be resolved"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError() | aiohttp.ClientSSLError():
            outcome, text = Outcome.TLS, f"TLS failed: {_reason(error)}"
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError():
            outcome, text = Outcome.CONNECT, f"no connection to the endpoint: {_reason(error)}"
        case TimeoutError():
            outcome, text = Outcome.TIMEOUT, "no answer within the time limit"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | aiohttp.ClientPayloadError() | ConnectionError():
            outcome, text = Outcome.RESET, "the connection broke before the answer was complete"
        case aiohttp.ClientResponseError():
            outcome, text = Outcome.PROTOCOL, "the answer was not valid HTTP"
        case _:
            outcome, text = Outcome.PROTOCOL, f"the request could not be made ({type(error).__name__})"
    return Answer(outcome, 0, text, b"", "")


def _reason(error: BaseException) -> str:
    """Return the short reason for a connection's error, without the addresses that its text may contain."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return getattr(error.certificate_error, "verify_message", "") or "the certificate was not accepted"
    cause = getattr(error, "os_error", None)
    if isinstance(cause, ssl.SSLError):
        return cause.reason or type(cause).__name__
    if isinstance(cause, OSError):
        # The error's own text names the address; an error without a number sums up the errors of several addresses.
        return os.strerror(cause.errno) if cause.errno else "none of its addresses took it"
    return "it took too long" if isinstance(error, TimeoutError) else type(error).__name__


@contextlib.asynccontextmanager
async def open_aiohttp_transport(
    policy: EgressPolicy, *, timeout_s: float, connect_timeout_s: float, connections_max: int, names: AbstractResolver | None = None
) -> AsyncIterator[AiohttpTransport]:
    """Open the connection pool; on exit, requests under way are cut off and answered as reset.

    `names` looks names up; without it, the system's resolver does.
    """

    def guarded_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        why = policy.check_addresses([str(address[0])])
        if why is not None:
            raise BlockedError(why)
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        limit=connections_max,
        limit_per_host=0,
        keepalive_timeout=_IDLE_S,
        socket_factory=guarded_socket,
        resolver=JudgingResolver(policy, names or aiohttp.ThreadedResolver()),
        ttl_dns_cache=10,
    )
    timeout = aiohttp.ClientTimeout(total=timeout_s, connect=None, sock_connect=connect_timeout_s)
    async with (
        aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("accept-encoding", "accept"),
            max_line_size=_HEADER_BYTES_MAX,
            max_field_size=_HEADER_BYTES_MAX,
        ) as session,
        asyncio.TaskGroup() as group,
    ):
        transport = AiohttpTransport(session, group, policy)
        try:
            yield transport
        finally:
            transport.cut_off()
