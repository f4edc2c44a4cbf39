"""RPC: the one way to make a gRPC server or channel, with the pitfalls of grpc.aio answered.

Server: the outermost interceptor asks who calls before the message is read, denies undeclared methods, maps every exception to a
status without leaking its text, and keeps the caller's deadline for the calls made on its behalf. One port, one server.
Channel: round robin over all addresses, keepalive within what our servers permit, retries of named
idempotent reads, and a deadline on every unary call.
"""

import asyncio
import contextlib
import contextvars
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast, overload

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2_grpc

from services.runtime.access import Access, AccessRules, ServiceToken, ServiceTokens
from services.runtime.call_guard import CallGuard, CallLimits
from services.runtime.errors import STATUS_DETAILS_KEY, Failure, Reason, failure_status
from services.runtime.grpc_arguments import Connecting, channel_arguments, server_arguments
from services.runtime.health_server import HEALTH_METHODS, HealthServer
from services.runtime.lifecycle import StartError
from services.runtime.logs import logger
from services.runtime.reflection import REFLECTION_METHODS, reflection_handlers
from services.runtime.renewed_channel import RenewedChannel
from services.runtime.tls import ClientTls, ServerTls

DEADLINE_DEFAULT_S = 10.0
DRAIN_S = 20.0

_deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("deadline", default=None)

# A message without credentials is read only for health checks and reflection; those are small and come at once.
_PUBLIC_REQUEST_S = 10.0

# In quotes: the stubs say generic, the class is not.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]]
Authorize = Callable[[str], Awaitable[None]]
"""Returns if an API key may call; raises `Failure` KEY_REQUIRED, KEY_INVALID, ROLE_FORBIDDEN or UNAVAILABLE."""
Parse = Callable[[Any], Any]
_Outcome = TypeVar("_Outcome")
Behaviour = Callable[[Any, Any], _Outcome]
# After these a caller is still unknown.
_STRANGERS = frozenset({Reason.ROUTE_NOT_FOUND, Reason.KEY_REQUIRED, Reason.KEY_INVALID, Reason.SERVICE_TOKEN_REQUIRED})


class Boundary(grpc.aio.ServerInterceptor):
    """The outermost interceptor: access, deadlines, errors."""

    def __init__(self, rules: AccessRules, authorize: Authorize | None, guard: CallGuard) -> None:
        self._rules = rules
        self._authorize = authorize
        self._guard = guard

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        """Return what answers a call: its handler, wrapped, or a refusal that reads no message."""
        method = str(details.method)
        try:
            authorization = authorization_of(details.invocation_metadata)
            handler = await continuation(details)
            if handler is None:
                raise Failure(Reason.ROUTE_NOT_FOUND, "There is no such method; compare with the contract.")
            access = self._rules.check(method, authorization)
            if access is Access.KEY and self._authorize is not None:
                await self._authorize(authorization)
        except Failure as failure:
            return self._refusing(failure)
        except Exception:  # noqa: BLE001 - the boundary: nothing unmapped may pass
            logger().exception("rpc.failed", method=method)
            return self._refusing(_fault())
        return _Bounded(method, access, self._guard).handler(handler)

    def _refusing(self, failure: Failure) -> Handler:
        async def refuse(_requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            if failure.reason in _STRANGERS:
                await self._guard.refused(context.peer())
            await _abort(context, failure)

        # A stream-stream handler answers a call of any shape.
        return grpc.stream_stream_rpc_method_handler(cast("Any", refuse))


def authorization_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Return the value of `authorization`, "" without one; raise `Failure` KEY_REQUIRED if there are several."""
    values = [str(value) for key, value in metadata or () if key == "authorization"]
    if len(values) > 1:
        raise Failure(Reason.KEY_REQUIRED, "The call has several `authorization` values; send one.")
    return values[0] if values else ""


class _Bounded:
    """One call's handler, with its limits, its deadline and its errors. Messages arrive as bytes and are parsed here."""

    def __init__(self, method: str, access: Access, guard: CallGuard) -> None:
        self._method = method
        self._access = access
        self._guard = guard

    def handler(self, handler: Handler) -> Handler:
        """Return the handler wrapped."""
        parse, serialize = cast("Parse | None", handler.request_deserializer), handler.response_serializer
        if handler.request_streaming:
            if handler.response_streaming:
                stream = self._stream(cast("Any", handler.stream_stream), _parsing_each(parse))
                return grpc.stream_stream_rpc_method_handler(cast("Any", stream), None, serialize)
            unary = self._unary(cast("Any", handler.stream_unary), _parsing_each(parse))
            return grpc.stream_unary_rpc_method_handler(cast("Any", unary), None, serialize)
        if handler.response_streaming:
            stream = self._stream(cast("Any", handler.unary_stream), _parsing(parse))
            return grpc.unary_stream_rpc_method_handler(cast("Any", stream), None, serialize)
        unary = self._unary(cast("Any", handler.unary_unary), _parsing(parse))
        if self._access is Access.PUBLIC:
            return grpc.stream_stream_rpc_method_handler(cast("Any", _of_first_message(unary)), None, serialize)
        return grpc.unary_unary_rpc_method_handler(cast("Any", unary), None, serialize)

    def _unary(self, behaviour: Behaviour[Awaitable[Any]], parse: Parse) -> Behaviour[Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Message:  # noqa: ANN401 - bytes, or an iterator of them
            _keep_deadline(context)
            async with _mapped_errors(self._method, context):
                with self._guard.admitted(context.peer(), self._access):
                    answer: Message = await behaviour(parse(request), context)
                    return answer
            raise AssertionError

        return call

    def _stream(self, behaviour: Behaviour[Any], parse: Parse) -> Behaviour[Any]:
        async def write(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: ANN401 - as above
            async with _mapped_errors(self._method, context):
                with self._guard.admitted(context.peer(), self._access):
                    await behaviour(parse(request), context)

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Message]:  # noqa: ANN401 - as above
            async with _mapped_errors(self._method, context):
                with self._guard.admitted(context.peer(), self._access):
                    async with contextlib.aclosing(behaviour(parse(request), context)) as answers:
                        async for answer in answers:
                            yield answer

        # Some handlers write to the context instead of yielding.
        return call if inspect.isasyncgenfunction(behaviour) else write


def _parsing(parse: Parse | None) -> Parse:
    """Return a parser that refuses what is not protobuf; without one, bytes stay bytes."""
    if parse is None:
        return lambda message: message

    def parsed(message: bytes) -> object:
        try:
            return parse(message)
        except DecodeError:
            text = "The message is not protobuf of this method's request type; compare with the contract."
            raise Failure(Reason.INVALID_ARGUMENT, text) from None

    return parsed


def _parsing_each(parse: Parse | None) -> Parse:
    if parse is None:
        return lambda messages: messages
    one = _parsing(parse)

    async def parsed(messages: AsyncIterator[bytes]) -> AsyncIterator[object]:
        async for message in messages:
            yield one(message)

    return parsed


def _of_first_message(unary: Behaviour[Awaitable[Any]]) -> Behaviour[AsyncIterator[Any]]:
    """Return a unary method as a stream of one message each way, so that the wait for the request has a deadline."""

    async def call(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Message]:
        try:
            async with asyncio.timeout(_PUBLIC_REQUEST_S):
                request = await anext(requests)
        except (TimeoutError, StopAsyncIteration):
            await _abort(context, Failure(Reason.INVALID_ARGUMENT, "The call has brought no message."))
            return
        yield await unary(request, context)

    return call


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
        await _abort(context, _fault())


def _fault() -> Failure:
    return Failure(Reason.INTERNAL, "The service met a fault of its own; its logs say which.")


async def _abort(context: grpc.aio.ServicerContext[Any, Any], failure: Failure) -> None:
    status = failure_status(failure)
    details = ((STATUS_DETAILS_KEY, status.SerializeToString()),)
    await context.abort(failure.reason.code, status.message, trailing_metadata=details)


class Server:
    """A gRPC server with health v1, on one address."""

    def __init__(
        self,
        rules: Mapping[str, Access],
        service_token: ServiceToken,
        *,
        authorize: Authorize | None = None,
        limits: CallLimits | None = None,
        reflection: bool = False,
    ) -> None:
        """Make a server that permits what `rules` declare, and health checks.

        `authorize` judges the value of `authorization` for methods of `Access.KEY`; without it they judge it themselves.
        With `reflection` it describes its methods to anyone.
        """
        limits = limits or CallLimits()
        public = dict.fromkeys((*HEALTH_METHODS, *(REFLECTION_METHODS if reflection else ())), Access.PUBLIC)
        self._guard = CallGuard(limits)
        boundary = Boundary(AccessRules({**rules, **public}, service_token), authorize, self._guard)
        connecting = Connecting(connections_max=limits.connections_max, calls_per_connection_max=limits.calls_per_connection_max)
        self.grpc = grpc.aio.server(interceptors=[boundary], options=server_arguments(connecting))
        names = {name.split("/")[1] for name in rules}
        self._health = HealthServer(names)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        if reflection:
            self.grpc.add_generic_rpc_handlers(reflection_handlers(names))

    async def start(self, listen: str, tls: ServerTls | None = None) -> str:
        """Bind `listen` (``host:port`` or ``unix:path``, which is never encrypted), start, and return the address bound."""
        try:
            if tls is None or listen.startswith("unix:"):
                port = self.grpc.add_insecure_port(listen)
            else:
                port = self.grpc.add_secure_port(listen, tls.grpc_credentials())
        except RuntimeError as error:
            raise _cannot_listen(listen) from error
        await self.grpc.start()
        if not listen.startswith("unix:"):
            self._guard.watch(port)
        # A Unix socket that cannot be made is no error to grpc.
        if listen.startswith("unix:") and not _is_socket(listen.removeprefix("unix:").removeprefix("//")):
            raise _cannot_listen(listen)
        return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"

    def change_limits(self, limits: CallLimits) -> None:
        """Go by other limits from now on, as far as gRPC does not take them at the start."""
        self._guard.change(limits)

    async def set_serving(self, *, serving: bool) -> None:
        """Answer health checks with SERVING or NOT_SERVING."""
        self._health.set_serving(serving=serving)

    async def stop(self, grace_s: float = DRAIN_S) -> None:
        """Take no more calls, let those under way end within `grace_s`, then cut them off."""
        self._health.stop()
        self._guard.stop()
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


def open_channel(target: str, *, retried: Sequence[str] = (), tls: ClientTls | None = None) -> grpc.aio.Channel:
    """Open a channel to `target` (``host:port``, ``dns:///name:port`` or ``unix:path``, which is never encrypted).

    `retried` names idempotent methods (``package.Service/Method``) that are sent again, up to four
    more times, where the server could not be reached.
    """
    options = channel_arguments(retried)
    interceptors: Any = [Deadlines()]
    if tls is None or target.startswith("unix:"):
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    return RenewedChannel(tls, lambda credentials: grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors))


@overload
def service_metadata(service_token: str) -> tuple[tuple[str, str], ...]: ...


@overload
def service_metadata(service_token: ServiceToken) -> Sequence[tuple[str, str]]: ...


def service_metadata(service_token: ServiceToken) -> Sequence[tuple[str, str]]:
    """Return the metadata by which one service shows another that it is one."""
    return service_token if isinstance(service_token, ServiceTokens) else (("authorization", f"Bearer {service_token}"),)
