"""RPC: the one way to make a gRPC server or channel, with the pitfalls of grpc.aio answered.

Server: the outermost interceptor denies undeclared methods, maps every exception to a status without
leaking its text, and keeps the caller's deadline for the calls made on its behalf. One port, one server.
Channel: round robin over all addresses, keepalive within what our servers permit, retries of named
idempotent reads, and a deadline on every unary call.
"""

import asyncio
import contextlib
import contextvars
import inspect
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from services.runtime.access import Access, AccessRules
from services.runtime.errors import STATUS_DETAILS_KEY, Failure, Reason, failure_status
from services.runtime.lifecycle import StartError
from services.runtime.logs import logger

MESSAGE_BYTES_MAX = 8 * 1024 * 1024
DEADLINE_DEFAULT_S = 10.0
DRAIN_S = 20.0

_deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("deadline", default=None)

# How much of a stream the transport takes in before anybody asks for it. By itself it would raise that as far as a fast
# peer can fill it: 24 emitters faster than the disk took 1.8 GB of ingest's memory within seconds.
_READ_AHEAD: list[tuple[str, int]] = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024 * 1024)]

_SERVER_OPTIONS: list[tuple[str, int]] = [
    *_READ_AHEAD,
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # Clients behind a name with several addresses look it up again only when a connection ends.
    ("grpc.max_connection_age_ms", 30 * 60 * 1000),
    ("grpc.max_connection_age_grace_ms", 60 * 1000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
]

# In quotes: the stubs say generic, the class is not.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]]


class Boundary(grpc.aio.ServerInterceptor):
    """The outermost interceptor: access, deadlines, errors."""

    def __init__(self, rules: AccessRules) -> None:
        self._rules = rules

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        """Wrap the handler of a call."""
        method = str(details.method)
        authorization = next((str(value) for key, value in details.invocation_metadata or () if key == "authorization"), "")
        handler = await continuation(details)
        if handler is None:
            return _refusing(Failure(Reason.ROUTE_NOT_FOUND, "There is no such method; compare with the contract."))
        try:
            self._rules.check(method, authorization)
        except Failure as failure:
            return _refusing(failure)
        return _bounded(method, handler)


def _refusing(failure: Failure) -> Handler:
    # A stream-stream handler answers a call of any shape.
    async def refuse(_requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await _abort(context, failure)

    return grpc.stream_stream_rpc_method_handler(cast("Any", refuse))


def _bounded(method: str, handler: Handler) -> Handler:
    serializers = (handler.request_deserializer, handler.response_serializer)
    if handler.response_streaming:
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
        make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        return make(cast("Any", _bounded_stream(method, cast("Any", behaviour))), *serializers)
    behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
    make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
    return make(cast("Any", _bounded_unary(method, cast("Any", behaviour))), *serializers)


def _bounded_unary(
    method: str, behaviour: Callable[[Any, Any], Awaitable[Message]]
) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Message]]:
    async def call(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
        _keep_deadline(context)
        async with _mapped_errors(method, context):
            return await behaviour(request, context)
        raise AssertionError

    return call


def _bounded_stream(
    method: str, behaviour: Callable[[Any, Any], AsyncIterator[Message]]
) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], AsyncIterator[Message] | Awaitable[None]]:
    async def write(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async with _mapped_errors(method, context):
            await cast("Any", behaviour(request, context))

    async def call(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Message]:
        async with _mapped_errors(method, context), contextlib.aclosing(cast("Any", behaviour(request, context))) as answers:
            async for answer in answers:
                yield answer

    # Some handlers (health's Watch) write to the context instead of yielding.
    return call if inspect.isasyncgenfunction(behaviour) else write


def _keep_deadline(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    remaining = context.time_remaining()
    _deadline.set(None if remaining is None else time.monotonic() + remaining)


@contextlib.asynccontextmanager
async def _mapped_errors(method: str, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    try:
        yield
    except Failure as failure:
        await _abort(context, failure)
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    except Exception:  # noqa: BLE001 - the boundary: nothing unmapped may pass
        logger().exception("rpc.failed", method=method)
        await _abort(context, Failure(Reason.INTERNAL, "The service met a fault of its own; its logs say which."))


async def _abort(context: grpc.aio.ServicerContext[Any, Any], failure: Failure) -> None:
    status = failure_status(failure)
    details = ((STATUS_DETAILS_KEY, status.SerializeToString()),)
    await context.abort(failure.reason.code, status.message, trailing_metadata=details)


class Server:
    """A gRPC server with health v1, on one address."""

    def __init__(self, rules: Mapping[str, Access], service_token: str) -> None:
        """Make a server that permits what `rules` declare, and health checks."""
        public = {f"/grpc.health.v1.Health/{name}": Access.PUBLIC for name in ("Check", "Watch", "List")}
        boundary = Boundary(AccessRules({**rules, **public}, service_token))
        self.grpc = grpc.aio.server(interceptors=[boundary], options=_SERVER_OPTIONS)
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)

    async def start(self, listen: str) -> str:
        """Bind `listen` (``host:port`` or ``unix:path``), start, and return the address bound."""
        try:
            port = self.grpc.add_insecure_port(listen)
        except RuntimeError as error:
            raise _cannot_listen(listen) from error
        await self.grpc.start()
        # A Unix socket that cannot be made is no error to grpc.
        if listen.startswith("unix:") and not _is_socket(listen.removeprefix("unix:").removeprefix("//")):
            raise _cannot_listen(listen)
        return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"

    async def set_serving(self, *, serving: bool) -> None:
        """Answer health checks with SERVING or NOT_SERVING."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set("", status)

    async def stop(self, grace_s: float = DRAIN_S) -> None:
        """Take no more calls, let those under way end within `grace_s`, then cut them off."""
        await self._health.enter_graceful_shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s + 2):
                await self.grpc.stop(grace_s)


def _is_socket(path: str) -> bool:
    return Path(path).is_socket()


def _cannot_listen(listen: str) -> StartError:
    if listen.startswith("unix:"):
        return StartError(f"cannot listen on {listen}: choose a path in a directory that exists and can be written")
    where = "another process uses it, or it is no address of this machine"
    return StartError(f"cannot listen on {listen}: {where}; stop that process, or choose another address")


class Deadlines(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives every unary call a deadline: what is left of the caller's own, at most the default."""

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,  # noqa: ANN401 - any message
    ) -> Any:  # noqa: ANN401 - the call object of grpc
        """Set the deadline and go on."""
        limit = client_call_details.timeout or DEADLINE_DEFAULT_S
        deadline = _deadline.get()
        if deadline is not None:
            limit = max(0.001, min(limit, deadline - time.monotonic()))
        details = grpc.aio.ClientCallDetails(
            client_call_details.method,
            limit,
            client_call_details.metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        return await continuation(details, request)


def open_channel(target: str, *, retried: Sequence[str] = ()) -> grpc.aio.Channel:
    """Open a channel to `target` (``host:port``, ``dns:///name:port`` or ``unix:path``).

    `retried` names idempotent methods (``package.Service/Method``) that are sent again, up to four
    more times, where the server could not be reached.
    """
    names = [dict(zip(("service", "method"), name.split("/"), strict=True)) for name in retried]
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": names, "retryPolicy": policy}] if names else [],
    }
    options: list[tuple[str, Any]] = [
        *_READ_AHEAD,
        ("grpc.service_config", json.dumps(config)),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        # Else channels to one target share their connections, and with them the pause after one that failed.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]
    return grpc.aio.insecure_channel(target, options=options, interceptors=cast("Any", [Deadlines()]))


def service_metadata(service_token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata by which one service shows another that it is one."""
    return (("authorization", f"Bearer {service_token}"),)
