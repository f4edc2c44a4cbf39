import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import DoubleValue, StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.errors import Failure, FieldError, Reason, failure_from_rpc
from services.runtime.rpc.access import Access
from services.runtime.rpc.call_guard import PUBLIC_CALLS_PER_NETWORK_MAX, CallLimits
from services.runtime.rpc.channel_and_server import DEADLINE_DEFAULT_S, Server, open_channel, service_metadata
from services.runtime.rpc.channel_arguments import REQUEST_BYTES_MAX
from services.runtime.service_process import StartError

TOKEN = "hts_a-token-for-this-test-only"
SECRET_TEXT = "password=hunter2"
SERVICE = "test.v1.Probe"
# A deadline travels as a rounded figure.
ROUNDING_S = 0.5
METHODS = ("Echo", "Fail", "Refuse", "Remaining", "Relay", "Flaky")
STREAMS = ("FailLater",)

Context = grpc.aio.ServicerContext[Any, Any]


class Probe:
    """A service of the tests' own, which shows how the server treats a call."""

    def __init__(self) -> None:
        self.listen = "127.0.0.1:0"
        self.target = ""
        self.attempts = 0

    async def echo(self, request: StringValue, _context: Context) -> StringValue:
        """Answer with the request."""
        return request

    async def fail(self, _request: StringValue, _context: Context) -> StringValue:
        """Raise an error whose text no caller may read."""
        raise ValueError(SECRET_TEXT)

    async def fail_later(self, request: StringValue, _context: Context) -> AsyncIterator[StringValue]:
        """Raise an error whose text no caller may read, after an answer."""
        yield request
        raise ValueError(SECRET_TEXT)

    async def refuse(self, _request: StringValue, _context: Context) -> StringValue:
        """Refuse with every detail that a failure can carry."""
        fields = [FieldError(f"field[{number}]", "wrong " * 100) for number in range(100)]
        raise Failure(Reason.STORAGE_FULL, "Make room. " * 1000, fields=fields, retry_after_s=2.5)

    async def remaining(self, _request: StringValue, context: Context) -> DoubleValue:
        """Answer the seconds until the caller's deadline."""
        return DoubleValue(value=context.time_remaining() or 0)

    async def relay(self, request: StringValue, _context: Context) -> DoubleValue:
        """Make a call for the caller, without a deadline of its own."""
        async with open_channel(self.target) as channel:
            return DoubleValue.FromString(await ask(channel, "Remaining", request))

    async def flaky(self, request: StringValue, _context: Context) -> StringValue:
        """Fail as unavailable twice, then answer."""
        self.attempts += 1
        if self.attempts % 3:
            raise Failure(Reason.UNAVAILABLE, "Try again.")
        return request

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the methods for a server."""
        unary = (self.echo, self.fail, self.refuse, self.remaining, self.relay, self.flaky)
        known: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(method, StringValue.FromString, lambda answer: answer.SerializeToString())
            for name, method in zip(METHODS, unary, strict=True)
        }
        known["FailLater"] = grpc.unary_stream_rpc_method_handler(
            self.fail_later,
            StringValue.FromString,
            StringValue.SerializeToString,
        )
        known["Undeclared"] = known["Echo"]
        return grpc.method_handlers_generic_handler(SERVICE, known)


async def ask(
    channel: grpc.aio.Channel,
    method: str,
    request: StringValue | None = None,
    token: str = TOKEN,
    timeout: float | None = None,  # noqa: ASYNC109 - grpc's own argument
) -> bytes:
    """Call a method and return the answer's bytes."""
    call = channel.unary_unary(f"/{SERVICE}/{method}", request_serializer=StringValue.SerializeToString, response_deserializer=bytes)
    metadata = service_metadata(token) if token else ()
    answer: bytes = await call(request or StringValue(value="hello"), metadata=metadata, timeout=timeout)
    return answer


async def error_of(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@contextlib.asynccontextmanager
async def served(probe: Probe, access: Access = Access.SERVICE, limits: CallLimits | None = None) -> AsyncIterator[Server]:
    server = Server({f"/{SERVICE}/{name}": access for name in (*METHODS, *STREAMS)}, TOKEN, limits=limits)
    server.grpc.add_generic_rpc_handlers((probe.handlers(),))
    probe.target = await server.start(probe.listen)
    try:
        yield server
    finally:
        await server.stop(0.1)


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    running = Probe()
    async with served(running):
        yield running


@pytest.fixture
async def channel(probe: Probe) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(probe.target, retried=[f"{SERVICE}/Flaky"]) as opened:
        yield opened


async def test_the_text_of_an_unexpected_exception_never_leaves(channel: grpc.aio.Channel) -> None:
    error = await error_of(ask(channel, "Fail"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert failure_from_rpc(error).reason is Reason.INTERNAL
    assert "hunter2" not in repr((error.details(), error.debug_error_string(), error.trailing_metadata()))
    assert "ValueError" not in repr((error.details(), error.debug_error_string(), error.trailing_metadata()))


async def test_neither_does_it_from_the_middle_of_a_stream(channel: grpc.aio.Channel) -> None:
    call = channel.unary_stream(f"/{SERVICE}/FailLater", StringValue.SerializeToString, StringValue.FromString)
    stream = call(StringValue(value="hello"), metadata=service_metadata(TOKEN), timeout=10)
    assert await stream.read() == StringValue(value="hello")
    error = await error_of(stream.read())
    assert failure_from_rpc(error).reason is Reason.INTERNAL
    assert "hunter2" not in repr((error.details(), error.debug_error_string(), error.trailing_metadata()))


async def test_a_failure_arrives_as_it_was_raised_cut_to_what_metadata_holds(channel: grpc.aio.Channel) -> None:
    error = await error_of(ask(channel, "Refuse"))
    failure = failure_from_rpc(error)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.reason is Reason.STORAGE_FULL
    assert failure.message.startswith("Make room.")
    assert failure.retry_after_s == 2.5
    assert [field.field for field in failure.fields] == [f"field[{number}]" for number in range(len(failure.fields))]
    assert len(failure.fields) >= 10


@pytest.mark.parametrize("token", ["", "hts_another-token-altogether", TOKEN + "x", TOKEN[:-1]])
async def test_a_service_method_needs_the_service_token(channel: grpc.aio.Channel, token: str) -> None:
    failure = failure_from_rpc(await error_of(ask(channel, "Echo", token=token)))
    assert failure.reason is Reason.SERVICE_TOKEN_REQUIRED
    assert StringValue.FromString(await ask(channel, "Echo")).value == "hello"


async def test_what_is_not_declared_is_denied_whoever_asks(channel: grpc.aio.Channel) -> None:
    error = await error_of(ask(channel, "Undeclared"))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert failure_from_rpc(error).reason is Reason.SERVICE_TOKEN_REQUIRED


async def test_what_does_not_exist_is_said_not_to(channel: grpc.aio.Channel) -> None:
    assert failure_from_rpc(await error_of(ask(channel, "Missing"))).reason is Reason.ROUTE_NOT_FOUND


@pytest.mark.parametrize("access", [Access.PUBLIC, Access.KEY])
async def test_a_method_for_others_is_open_to_them(access: Access) -> None:
    probe = Probe()
    async with served(probe, access), open_channel(probe.target) as channel:
        assert StringValue.FromString(await ask(channel, "Echo", token="")).value == "hello"


async def test_health_is_for_everyone_and_follows_the_service() -> None:
    probe = Probe()
    async with served(probe) as server, open_channel(probe.target) as channel, asyncio.timeout(10):
        health = health_pb2_grpc.HealthStub(channel)
        states = health.Watch(health_pb2.HealthCheckRequest())
        await server.set_serving(serving=True)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        while (await states.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        await server.set_serving(serving=False)
        assert (await states.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        states.cancel()


async def test_health_is_known_by_the_name_of_each_service() -> None:
    """`grpc_health_probe -service` asks for it this way, and `List` answers with it."""
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    probe = Probe()
    async with served(probe) as server, asyncio.timeout(10), open_channel(probe.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        listed = await health.List(health_pb2.HealthListRequest())
        assert {name: answer.status for name, answer in listed.statuses.items()} == {"": not_serving, SERVICE: not_serving}
        await server.set_serving(serving=True)
        assert (await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))).status == serving
        listed = await health.List(health_pb2.HealthListRequest())
        assert {name: answer.status for name, answer in listed.statuses.items()} == {"": serving, SERVICE: serving}
        error = await error_of(health.Check(health_pb2.HealthCheckRequest(service="test.v1.Another")))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        watched = health.Watch(health_pb2.HealthCheckRequest(service="test.v1.Another"))
        assert (await watched.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watched.cancel()


@pytest.mark.parametrize("method", ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/List", f"{SERVICE}/Echo", f"{SERVICE}/FailLater"])
async def test_what_is_not_protobuf_is_refused_without_a_traceback(
    channel: grpc.aio.Channel, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    call = channel.unary_stream if method.endswith("FailLater") else channel.unary_unary
    calling = call(f"/{method}", request_serializer=bytes, response_deserializer=bytes)
    answer = calling(b"\xff\xff\xff", metadata=service_metadata(TOKEN), timeout=10)
    error = await error_of(answer.read() if isinstance(answer, grpc.aio.UnaryStreamCall) else answer)
    assert failure_from_rpc(error).reason is Reason.INVALID_ARGUMENT
    assert "Traceback" not in "".join(capfd.readouterr())


async def test_a_call_without_credentials_is_refused_before_it_sends_a_message(channel: grpc.aio.Channel) -> None:
    """The server reads nothing from an unknown caller: it refuses also a call that never sends its message."""
    async with asyncio.timeout(10):
        for method in ("Echo", "Undeclared", "Missing"):
            call = channel.stream_stream(f"/{SERVICE}/{method}", request_serializer=bytes, response_deserializer=bytes)()
            assert await call.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_messages_are_not_accepted(channel: grpc.aio.Channel, compression: grpc.Compression) -> None:
    """The server refuses them with UNIMPLEMENTED (gRPC, compression.md), after it has checked the caller."""
    call = channel.unary_unary(f"/{SERVICE}/Echo", request_serializer=StringValue.SerializeToString, response_deserializer=bytes)
    packed = StringValue(value="x" * 1000)
    error = await error_of(call(packed, metadata=service_metadata(TOKEN), timeout=10, compression=compression))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert failure_from_rpc(error).reason is Reason.UNSUPPORTED_MEDIA_TYPE
    stranger = await error_of(call(packed, timeout=10, compression=compression))
    assert stranger.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_calls_without_credentials_are_bounded_by_address_and_calls_with_the_token_are_not() -> None:
    probe = Probe()
    limits = CallLimits(calls_per_network_max=1, connections_per_network_max=1)
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(20):
        await stack.enter_async_context(served(probe, limits=limits))
        channel = await stack.enter_async_context(open_channel(probe.target))
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(PUBLIC_CALLS_PER_NETWORK_MAX)]
        for watch in watches:
            await watch.read()
        another = await stack.enter_async_context(open_channel(probe.target))
        check = health_pb2_grpc.HealthStub(another).Check(health_pb2.HealthCheckRequest())
        assert failure_from_rpc(await error_of(check)).reason is Reason.OVERLOADED
        answers = await asyncio.gather(*(ask(another, "Echo") for _ in range(20)))
        assert len(answers) == 20
        for watch in watches:
            watch.cancel()


async def test_calls_that_send_no_message_are_bounded_as_well() -> None:
    probe = Probe()
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(20):
        await stack.enter_async_context(served(probe))
        channels = [await stack.enter_async_context(open_channel(probe.target)) for _ in range(3)]
        another = channels.pop()
        # More calls than are permitted, since a check may take the place of one of them.
        silent = [
            channel.stream_stream("/grpc.health.v1.Health/Watch", bytes, bytes)()
            for channel in channels
            for _ in range(PUBLIC_CALLS_PER_NETWORK_MAX * 2 // 3)
        ]
        check = another.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
        while await (refused := check(b"")).code() is grpc.StatusCode.OK:
            pass
        assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in silent:
            call.cancel()


async def test_every_call_has_a_deadline(channel: grpc.aio.Channel) -> None:
    assert 0 < DoubleValue.FromString(await ask(channel, "Remaining")).value <= DEADLINE_DEFAULT_S + ROUNDING_S


async def test_a_call_made_for_a_caller_ends_with_the_callers_deadline(channel: grpc.aio.Channel) -> None:
    assert 0 < DoubleValue.FromString(await ask(channel, "Relay", timeout=3)).value <= 3 + ROUNDING_S
    assert 5 < DoubleValue.FromString(await ask(channel, "Relay", timeout=60)).value <= DEADLINE_DEFAULT_S + ROUNDING_S


async def test_a_named_method_is_called_again_where_the_service_was_away(probe: Probe, channel: grpc.aio.Channel) -> None:
    assert StringValue.FromString(await ask(channel, "Flaky")).value == "hello"
    assert probe.attempts == 3
    async with open_channel(probe.target) as other:
        assert failure_from_rpc(await error_of(ask(other, "Flaky"))).reason is Reason.UNAVAILABLE
    assert probe.attempts == 4


async def test_a_message_beyond_the_limit_is_refused(channel: grpc.aio.Channel) -> None:
    large = StringValue(value="x" * (REQUEST_BYTES_MAX - 100))
    assert len(await ask(channel, "Echo", large)) > REQUEST_BYTES_MAX - 100
    error = await error_of(ask(channel, "Echo", StringValue(value="x" * REQUEST_BYTES_MAX)))
    assert failure_from_rpc(error).reason is Reason.REQUEST_TOO_LARGE


async def test_a_service_that_is_away_is_unavailable() -> None:
    async with open_channel("127.0.0.1:1") as channel:
        failure = failure_from_rpc(await error_of(ask(channel, "Echo")))
    assert failure.reason is Reason.UNAVAILABLE
    assert "127.0.0.1" not in failure.message


async def test_a_channel_does_not_share_the_pause_that_another_makes() -> None:
    """The failures of a channel that was opened while the service was down do not delay a channel that was opened later."""
    with contextlib.closing(socket.socket()) as reserved:
        reserved.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{reserved.getsockname()[1]}"
    async with open_channel(listen) as early:
        for _ in range(3):
            assert failure_from_rpc(await error_of(ask(early, "Echo"))).reason is Reason.UNAVAILABLE
        probe = Probe()
        probe.listen = listen
        async with served(probe), open_channel(listen) as late:
            assert StringValue.FromString(await ask(late, "Echo")).value == "hello"


async def test_a_port_has_one_server(probe: Probe) -> None:
    second = Server({}, TOKEN)
    with pytest.raises(StartError, match="another process"):
        await second.start(probe.target)
    await second.stop(0)
