"""Listener: the gateway's HTTP server, with every limit set and protocol errors as problem+json.

client → [listener] → pipeline
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from gateway.problems import internal_fault
from gateway.responses import add_common_headers, problem_response
from services.runtime.errors import Failure, Reason
from services.runtime.http.connection_limits import Connection
from services.runtime.http.listener import Gate, GuardedConnection, accepting
from services.runtime.ids import new_id
from services.runtime.logs import logger
from services.runtime.tls import ServerTls


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How long clients may take after their headers have arrived, in seconds, and how much they may send besides bodies."""

    body_s: float = 20.0
    answer_s: float = 30.0
    # How long the bytes that a client sends after its refusal are read and dropped, so that the client sees the answer.
    lingering_s: float = 2.0
    drain_s: float = 20.0
    header_bytes_max: int = 8190
    headers_max: int = 100


class _Connection(GuardedConnection):
    """A connection that answers protocol errors with problem+json, like all other errors."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the answer to bytes that are not HTTP; `message` is the parser's, and is neither sent nor logged."""
        if request.writer.output_size > 0:
            message = "the answer has begun, so no other answer can be sent"
            raise ConnectionError(message)
        request_id = new_id("req")
        if isinstance(exc, LineTooLong):
            failure = Failure(Reason.REQUEST_TOO_LARGE, f"The request line or a header is larger than {self.max_line_size} bytes.")
        elif status == web.HTTPBadRequest.status_code:
            failure = Failure(Reason.INVALID_ARGUMENT, "The request is not valid HTTP/1.1.")
        else:
            logger().error("request.failed", request_id=request_id, exc_info=exc)
            failure = internal_fault()
        response = problem_response(failure, request_id)
        add_common_headers(response, request_id)
        response.force_close()
        # The parser's message is left out: it may repeat what was sent, and so a key.
        logger().info("request.malformed", request_id=request_id, status=response.status, fault=type(exc).__name__)
        return response


def connection_of(request: web.BaseRequest) -> GuardedConnection:
    """Return the connection of a request."""
    return cast("GuardedConnection", request.protocol)


@contextlib.asynccontextmanager
async def listening(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    listen: str,
    limits: HttpLimits,
    gate: Gate,
    tls: ServerTls | None = None,
) -> AsyncIterator[str]:
    """Serve the connections that `gate` admits on `listen` (``host:port``, or ``unix:path``, never encrypted); yields the address bound.

    At the end, requests in flight have `limits.drain_s` to be answered. Raises `StartError`.
    """
    server, loop = web.Server(handler), asyncio.get_running_loop()

    def connect(connection: Connection) -> GuardedConnection:
        return _Connection(
            server,
            gate,
            connection,
            loop=loop,
            lingering_time=limits.lingering_s,
            max_line_size=limits.header_bytes_max,
            max_field_size=limits.header_bytes_max,
            max_headers=limits.headers_max,
            # Compressed bodies are refused, so that no body expands into more than was sent.
            auto_decompress=False,
            access_log=None,
        )

    runner = web.ServerRunner(server, shutdown_timeout=limits.drain_s)
    await runner.setup()
    try:
        context = None if tls is None or listen.startswith("unix:") else tls.http_context()
        async with accepting(connect, gate, listen, tls=context) as bound:
            yield bound
    finally:
        await runner.cleanup()
