"""Channel and server: the only place that makes gRPC servers and channels, because it avoids the pitfalls of grpc.aio.

Server: the outermost interceptor authenticates the caller before it reads the message, denies undeclared methods, maps every exception
to a status without leaking its text, and keeps the caller's deadline for the calls made on its behalf. One server has one port.
Channel: round robin over all addresses, keepalive within what our servers permit, retries of named idempotent reads, and a deadline on
every unary call.
"""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, cast, overload

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2_grpc

from services.runtime.errors import STATUS_DETAILS_KEY, Failure, Reason, failure_status
from services.runtime.logs import logger
from services.runtime.rpc.access import Access, AccessRules, ServiceToken, ServiceTokens
from services.runtime.rpc.call_guard import CallGuard, CallLimits
from services.runtime.rpc.channel_arguments import Connecting, channel_arguments, server_arguments
from services.runtime.rpc.health_server import HEALTH_METHODS, HealthServer
from services.runtime.rpc.messages import parsed_message
from services.runtime.rpc.reflection import REFLECTION_METHODS, reflection_handlers
from services.runtime.rpc.renewed_channel import RenewedChannel
from services.runtime.service_process import StartError
from services.runtime.tls import ClientTls, ServerTls

DEADLINE_DEFAULT_S = 10.0
DRAIN_S = 20.0

_deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("deadline", default=None)

# How long the first message may take to arrive. Without credentials only health checks and reflection are served, which are small.
_PUBLIC_REQUEST_S, _REQUEST_S = 10.0, 60.0

# In quotes, since the class is generic in the stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]]
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Parse = Callable[[Any], Any]
_Outcome = TypeVar("_Outcome")
Behaviour = Callable[[Any, Any], _Outcome]
# After a refusal for one of these reasons the caller is still unknown.
_STRANGERS = frozenset({Reason.ROUTE_NOT_FOUND, Reason.KEY_REQUIRED, Reason.KEY_INVALID, Reason.SERVICE_TOKEN_REQUIRED})


class Authorizer(Protocol):
    """Checks API keys; callers pass the value of `authorization`."""

    def is_known(self, authorization: str) -> bool:
        """Return whether the key is known to be permitted, without asking the registry."""
        ...

    async def authorize(self, authorization: str) -> None:
        """Return if the key is permitted; raise `Failure` KEY_REQUIRED, KEY_INVALID, ROLE_FORBIDDEN or UNAVAILABLE."""
        ...


class Boundary(grpc.aio.ServerInterceptor):
    """The outermost interceptor: access, deadlines, errors."""

    def __init__(self, rules: AccessRules, authorizer: Authorizer | None, guard: CallGuard) -> None:
        self._rules = rules
        self._authorizer = authorizer
        self._guard = guard

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        """Return the handler that answers a call: the method's own, wrapped, or a refusal that reads no message."""
        method = str(details.method)
        try:
            authorization = authorization_of(details.invocation_metadata)
            handler = await continuation(details)
            if handler is None:
                raise Failure(Reason.ROUTE_NOT_FOUND, "There is no such method; compare the call with the .proto files.")
            access = self._rules.check(method, authorization)
        except Failure as failure:
            return self._refusing(failure)
        except Exception:  # noqa: BLE001 - the boundary: no unmapped exception may pass
            logger().exception("rpc.failed", method=method)
            return self._refusing(_fault())
        bounded = _Bounded(method, access, self._guard)
        if access is Access.KEY and self._authorizer is not None and not self._authorizer.is_known(authorization):
            return bounded.judged(handler, partial(self._judge, method, authorization))
        return bounded.handler(handler)

    async def _judge(self, method: str, authorization: str, context: Context) -> None:
        """Return if the call's key is right; otherwise end the call. Its message is not read before that."""
        assert self._authorizer is not None  # noqa: S101 - the caller has checked it
        self._guard.begun(context.peer())
        try:
            await self._authorizer.authorize(authorization)
        except Failure as failure:
            await self._end(context, failure)
        except asyncio.CancelledError:
            # Without this count, opening and resetting calls would be the cheapest way to keep this process busy.
            self._guard.abandoned(context.peer())
            raise
        except Exception:  # noqa: BLE001 - the boundary: no unmapped exception may pass
            logger().exception("rpc.failed", method=method)
            await _abort(context, _fault())

    def _refusing(self, failure: Failure) -> Handler:
        async def refuse(_requests: object, context: Context) -> None:
            await self._end(context, failure)

        # A stream-stream handler answers a call of any shape.
        return grpc.stream_stream_rpc_method_handler(cast("Any", refuse))

    async def _end(self, context: Context, failure: Failure) -> None:
        if failure.reason in _STRANGERS:
            await self._guard.refused(context.peer())
        await _abort(context, failure)


def authorization_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Return the value of `authorization`, "" without one; raise `Failure` KEY_REQUIRED if there are several."""
    values = [str(value) for key, value in metadata or () if key == "authorization"]
    if len(values) > 1:
        raise Failure(Reason.KEY_REQUIRED, "The call has several `authorization` values; send one.")
    return values[0] if values else ""


class _Bounded:
    """Wraps the handler of one call with limits, deadline and error mapping. Messages arrive as bytes and are parsed here."""

    def __init__(self, method: str, access: Access, guard: CallGuard) -> None:
        self._method = method
        self._access = access
        self._guard = guard

    def handler(self, handler: Handler) -> Handler:
        """Return the handler wrapped."""
        inner, serialize = self._inner(handler), handler.response_serializer
        if handler.request_streaming:
            make = grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
        elif self._access is not Access.SERVICE:
            # gRPC would read a whole message before it calls the method. Until then, the connection of a right key would count as unknown,
            # and might be closed for the bytes that it has sent.
            within_s = _PUBLIC_REQUEST_S if self._access is Access.PUBLIC else _REQUEST_S
            inner = self._of_first_message(inner, streams=handler.response_streaming, within_s=within_s)
            make = grpc.stream_stream_rpc_method_handler
        else:
            make = grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        return make(cast("Any", inner), None, serialize)

    def judged(self, handler: Handler, judge: Callable[[Context], Awaitable[None]]) -> Handler:
        """Return a wrapped handler that awaits `judge` first; until `judge` returns, no message is read."""
        inner = self._inner(handler)
        if not handler.request_streaming:
            inner = self._of_first_message(inner, streams=handler.response_streaming, within_s=_REQUEST_S)

        async def call(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Message]:
            await judge(context)
            async with contextlib.aclosing(inner(requests, context)) as answers:
                async for answer in answers:
                    yield answer

        return grpc.stream_stream_rpc_method_handler(cast("Any", call), None, handler.response_serializer)

    def _inner(self, handler: Handler) -> Behaviour[Any]:
        parse = cast("Parse | None", handler.request_deserializer)
        parsing = _parsing_each(parse) if handler.request_streaming else _parsing(parse)
        behaviour: Any = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary
        return self._stream(behaviour, parsing) if handler.response_streaming else self._unary(behaviour, parsing)

    def _of_first_message(self, inner: Behaviour[Any], *, streams: bool, within_s: float) -> Behaviour[AsyncIterator[Any]]:
        """Turn a method with one request into a stream method, so that the wait for the request is counted and has a time limit."""

        async def call(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Message]:
            async with _mapped_errors(self._method, context):
                with self._guard.admitted(context.peer(), self._access):
                    request = await _first(requests, within_s)
            if not streams:
                yield await inner(request, context)
                return
            async with contextlib.aclosing(inner(request, context)) as answers:
                async for answer in answers:
                    yield answer

        return call

    def _unary(self, behaviour: Behaviour[Awaitable[Any]], parse: Parse) -> Behaviour[Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Message:  # noqa: ANN401 - bytes, or an iterator of them
            _keep_deadline(context)
            async with _mapped_errors(self._method, context):
                with self._guard.admitted(context.peer(), self._access):
                    answer: Message = await behaviour(parse(request), context)
                    return answer
            raise AssertionError

        return call

    def _stream(self, behaviour: Behaviour[Any], parse: Parse) -> Behaviour[Any]:
        async def call(request: Any, context: Context) -> AsyncIterator[Message]:  # noqa: ANN401 - bytes, or an iterator of them
            async with _mapped_errors(self._method, context):
                with self._guard.admitted(context.peer(), self._access):
                    async with contextlib.aclosing(behaviour(parse(request), context)) as answers:
                        async for answer in answers:
                            yield answer

        return call


def _parsing(parse: Parse | None) -> Parse:
    """Return a function that parses one message. If `parse` is None, bytes stay bytes."""
    if parse is None:
        return lambda message: message
    return partial(parsed_message, parse)


def _parsing_each(parse: Parse | None) -> Parse:
    if parse is None:
        return lambda messages: messages
    one = _parsing(parse)

    async def parsed(messages: AsyncIterator[bytes]) -> AsyncIterator[object]:
        async for message in messages:
            yield one(message)

    return parsed


async def _first(requests: AsyncIterator[bytes], within_s: float) -> bytes:
    try:
        async with asyncio.timeout(within_s):
            return await anext(requests)
    except (TimeoutError, StopAsyncIteration):
        raise Failure(Reason.INVALID_ARGUMENT, "The call has no request message; send one.") from None


def _keep_deadline(context: Context) -> None:
    remaining = context.time_remaining()
    _deadline.set(None if remaining is None else time.monotonic() + remaining)


@contextlib.asynccontextmanager
async def _mapped_errors(method: str, context: Context) -> AsyncIterator[None]:
    try:
        yield
    except Failure as failure:
        await _abort(context, failure)
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    except Exception:  # noqa: BLE001 - the boundary: no unmapped exception may pass
        logger().exception("rpc.failed", method=method)
        await _abort(context, _fault())


def _fault() -> Failure:
    return Failure(Reason.INTERNAL, "An internal error occurred; it is in the service's log.")


async def _abort(context: Context, failure: Failure) -> None:
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
        authorizer: Authorizer | None = None,
        limits: CallLimits | None = None,
        reflection: bool = False,
    ) -> None:
        """Make a server that permits the methods that `rules` declare, and health checks.

        `authorizer` checks the keys for methods of `Access.KEY`; without it, those methods check the keys themselves.
        With `reflection` the server describes its methods to anyone.
        """
        limits = limits or CallLimits()
        public = dict.fromkeys((*HEALTH_METHODS, *(REFLECTION_METHODS if reflection else ())), Access.PUBLIC)
        self._guard = CallGuard(limits)
        boundary = Boundary(AccessRules({**rules, **public}, service_token), authorizer, self._guard)
        connecting = Connecting(connections_max=limits.connections_max, calls_per_connection_max=limits.calls_per_connection_max)
        self.grpc = grpc.aio.server(interceptors=[boundary], options=server_arguments(connecting))
        names = {name.split("/")[1] for name in rules}
        self._health = HealthServer(names)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        if reflection:
            self.grpc.add_generic_rpc_handlers(reflection_handlers(names))

    async def start(self, listen: str, tls: ServerTls | None = None) -> str:
        """Bind `listen`, start, and return the address bound. `listen` is ``host:port``, or ``unix:path``, which is never encrypted."""
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
        # gRPC reports no error if it cannot create a Unix socket.
        if listen.startswith("unix:") and not _is_socket(listen.removeprefix("unix:").removeprefix("//")):
            raise _cannot_listen(listen)
        return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"

    def change_limits(self, limits: CallLimits) -> None:
        """Use other limits from now on, except those that gRPC reads only at the start."""
        self._guard.change(limits)

    async def set_serving(self, *, serving: bool) -> None:
        """Answer health checks with SERVING or NOT_SERVING."""
        self._health.set_serving(serving=serving)

    async def stop(self, grace_s: float = DRAIN_S) -> None:
        """Take no more calls, let calls in flight end within `grace_s`, then cut them off."""
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
    where = "another process uses this address, or it is not an address of this machine"
    return StartError(f"cannot listen on {listen}: {where}; stop that process, or choose another address")


class Deadlines(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives every unary call a deadline: its own timeout or the default, and no later than the caller's deadline."""

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

    `retried` names idempotent methods (``package.Service/Method``). If the server cannot be reached, they are sent up to four more times.
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
    """Return the metadata by which one service authenticates to another."""
    return service_token if isinstance(service_token, ServiceTokens) else (("authorization", f"Bearer {service_token}"),)
