"""Listener: the HTTP server itself, with every limit set and its own errors in our form.

client → [listener] → pipeline
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from gateway.answers import dress, problem_answer
from gateway.problems import internal
from services.runtime.errors import Failure, Reason
from services.runtime.ids import new_id
from services.runtime.lifecycle import cannot_listen
from services.runtime.logs import logger


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How long clients may take, in seconds, and how much they may send besides bodies."""

    # From the connection, or the end of an answer, to the end of the next request's headers.
    idle_s: float = 75.0
    body_s: float = 20.0
    answer_s: float = 30.0
    # What a client goes on sending after its refusal is read and dropped for so long, so that it sees the answer.
    lingering_s: float = 2.0
    drain_s: float = 20.0
    header_bytes_max: int = 8190
    headers_max: int = 100


class _Connection(web.RequestHandler):
    """A connection whose protocol errors are problems like all others."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the answer to what is no HTTP; `message` is the parser's and stays in the log."""
        if request.writer.output_size > 0:
            message = "the answer has begun, there is no room for another"
            raise ConnectionError(message)
        request_id = new_id("req")
        if isinstance(exc, LineTooLong):
            failure = Failure(Reason.REQUEST_TOO_LARGE, f"The request line or a header is larger than {self.max_line_size} bytes.")
        elif status == web.HTTPBadRequest.status_code:
            failure = Failure(Reason.INVALID_ARGUMENT, "The request is no HTTP/1.1 that can be understood.")
        else:
            logger().error("request.failed", request_id=request_id, exc_info=exc)
            failure = internal()
        response = problem_answer(failure, request_id)
        dress(response, request_id)
        response.force_close()
        logger().info("request.malformed", request_id=request_id, status=response.status, detail=(message or "").partition("\n")[0])
        return response


class _Server(web.Server):
    """A server of such connections."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], limits: HttpLimits) -> None:
        super().__init__(handler)
        self._limits = limits

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return _Connection(
            self,
            loop=self._loop,
            keepalive_timeout=self._limits.idle_s,
            lingering_time=self._limits.lingering_s,
            max_line_size=self._limits.header_bytes_max,
            max_field_size=self._limits.header_bytes_max,
            max_headers=self._limits.headers_max,
            # Bodies are taken uncompressed only, so that none unfolds into more than was sent.
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # which switches it off
        )


@contextlib.asynccontextmanager
async def listening(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], listen: str, limits: HttpLimits
) -> AsyncIterator[str]:
    """Serve on `listen` (``host:port`` or ``unix:path``); yields the address bound.

    At the end, requests under way have `limits.drain_s` to be answered.
    """
    runner = web.ServerRunner(_Server(handler, limits), shutdown_timeout=limits.drain_s)
    await runner.setup()
    try:
        yield await _bound(runner, listen)
    finally:
        await runner.cleanup()


async def _bound(runner: web.ServerRunner, listen: str) -> str:
    host, _, port = listen.rpartition(":")
    is_path = listen.startswith("unix:")
    site = web.UnixSite(runner, listen.removeprefix("unix:")) if is_path else web.TCPSite(runner, host.strip("[]"), int(port))
    try:
        await site.start()
    except OSError as error:
        raise cannot_listen(listen, error) from error
    return listen if is_path else f"{host}:{runner.addresses[0][1]}"
