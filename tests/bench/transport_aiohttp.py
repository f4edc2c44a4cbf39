"""Transport over aiohttp: pooled keep-alive connections, one task per request."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import aiohttp
from yarl import URL

from services.delivery.model import Outcome
from services.delivery.transport import RESPONSE_BYTES_KEPT, RESPONSE_BYTES_MAX, Answer, Request
from services.egress.policy import EgressPolicy

_HEADER_BYTES_MAX = 16 * 1024
_IDLE_S = 30.0
_OK = range(200, 300)


class BlockedError(OSError):
    """The address that a name led to may not be dialled."""


class AiohttpTransport:
    """Sends by aiohttp; made by `open_aiohttp_transport`."""

    def __init__(self, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        self._session = session
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, request: Request, done: Callable[[Answer], None]) -> None:
        """Begin to send; see `Transport.send`."""
        task = self._group.create_task(self._send(request, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cut_off(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()

    async def _send(self, request: Request, done: Callable[[Answer], None]) -> None:
        try:
            answer = await self._exchange(request)
        except asyncio.CancelledError:
            done(Answer(Outcome.RESET, 0, "the service stopped before the answer came", b"", ""))
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            answer = _failed(error)
        done(answer)

    async def _exchange(self, request: Request) -> Answer:
        async with self._session.post(
            URL(request.url, encoded=True), data=request.body, headers=request.headers, allow_redirects=False
        ) as response:
            body = await _bounded_body(response)
            retry_after = response.headers.get("retry-after", "")
            if response.status in _OK:
                return Answer(Outcome.DELIVERED, response.status, "", b"", retry_after)
            error = f"the endpoint answered {response.status}"
            return Answer(Outcome.STATUS, response.status, error, body[:RESPONSE_BYTES_KEPT], retry_after)


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    """Read up to the limit; an answer that goes on beyond it loses its connection, the status counts."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) >= RESPONSE_BYTES_MAX:
            response.close()
            break
    return bytes(body)


def _failed(error: BaseException) -> Answer:
    match error:
        case aiohttp.ClientConnectorDNSError():
            outcome, text = Outcome.DNS, "the endpoint's name could not be resolved"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError() | aiohttp.ClientSSLError():
            outcome, text = Outcome.TLS, f"TLS failed: {_reason(error)}"
        case BlockedError() | aiohttp.ClientConnectorError(os_error=BlockedError()):
            outcome, text = Outcome.BLOCKED, str(error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error)
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
    """Return the short reason of a connection's error, without the addresses that its text may name."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return getattr(error.certificate_error, "verify_message", "") or "the certificate was not accepted"
    cause = getattr(error, "os_error", None)
    if isinstance(cause, OSError):
        return getattr(cause, "reason", None) or cause.strerror or type(cause).__name__
    return "it took too long" if isinstance(error, TimeoutError) else type(error).__name__


@contextlib.asynccontextmanager
async def open_aiohttp_transport(
    policy: EgressPolicy, *, timeout_s: float, connect_timeout_s: float, connections_max: int
) -> AsyncIterator[AiohttpTransport]:
    """Open the connection pool; on exit requests under way are cut off and answered as reset."""

    def guarded_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        why = policy.check_address(str(address[0]))
        if why is not None:
            raise BlockedError(why)
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        limit=connections_max, limit_per_host=0, keepalive_timeout=_IDLE_S, socket_factory=guarded_socket, ttl_dns_cache=10
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
        transport = AiohttpTransport(session, group)
        try:
            yield transport
        finally:
            transport.cut_off()
