"""Counted registry: a registry that counts what ingest asks it, and a client of it that goes by the test's clock."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from hooktide.subscription.v1 import access_pb2, catalogue_pb2

from services.ingest.emitter_authorization import EmitterAuthorizer
from services.ingest.registry_client import RETRIED, RegistryClient
from services.runtime.rpc.channel_and_server import open_channel
from tests.support.clock import MovedClock
from tests.support.system.registry import TOKEN

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class Counted:
    """A registry that knows every key except `wrong`, and whose catalogue a test sets; it serves one call of the catalogue."""

    target: str
    demanding: set[str] = field(default_factory=set)
    calls: list[list[str]] = field(default_factory=list)
    """The names of each call, sorted."""
    failures: list[grpc.StatusCode] = field(default_factory=list)
    """The errors with which the next calls end."""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """While set, catalogue calls are answered."""
    keys_open: asyncio.Event = field(default_factory=asyncio.Event)
    """While set, calls about keys are answered."""
    wrong: set[str] = field(default_factory=set)
    """The keys that the registry does not know."""
    asked: list[list[str]] = field(default_factory=list)
    """The keys of each call."""

    async def authenticate(self, request: access_pb2.AuthenticateKeysRequest, _context: Context) -> access_pb2.AuthenticateKeysResponse:
        """Answer that each key is an emitter's, unless it is wrong."""
        self.asked.append(list(request.keys))
        await self.keys_open.wait()
        emitter = access_pb2.AuthenticatedKey(key=access_pb2.Key(role=access_pb2.ROLE_EMITTER))
        results = [access_pb2.AuthenticatedKey() if key in self.wrong else emitter for key in request.keys]
        return access_pb2.AuthenticateKeysResponse(results=results)

    async def find_audience_required(
        self, request: catalogue_pb2.FindAudienceRequiredRequest, context: Context
    ) -> catalogue_pb2.FindAudienceRequiredResponse:
        """Answer by the catalogue at the moment of the call."""
        self.calls.append(sorted(request.names))
        found = self.demanding.intersection(request.names)
        if self.failures:
            await context.abort(self.failures.pop(0))
        await self.open.wait()
        return catalogue_pb2.FindAudienceRequiredResponse(names=found)


@contextlib.asynccontextmanager
async def counted_registry() -> AsyncIterator[Counted]:
    """Run a registry that counts."""
    server = grpc.aio.server()
    package = "hooktide.subscription.v1"
    made = Counted(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    made.open.set()
    made.keys_open.set()
    authenticate: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        cast("Any", made.authenticate),
        request_deserializer=access_pb2.AuthenticateKeysRequest.FromString,
        response_serializer=access_pb2.AuthenticateKeysResponse.SerializeToString,
    )
    find: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        cast("Any", made.find_audience_required),
        request_deserializer=catalogue_pb2.FindAudienceRequiredRequest.FromString,
        response_serializer=catalogue_pb2.FindAudienceRequiredResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(f"{package}.AccessService", {"AuthenticateKeys": authenticate}),
            grpc.method_handlers_generic_handler(f"{package}.CatalogueService", {"FindAudienceRequired": find}),
        )
    )
    await server.start()
    try:
        yield made
    finally:
        await server.stop(None)


@dataclass
class Asking:
    """Asks the registry as a publisher does, by a clock that the test moves."""

    authorizer: EmitterAuthorizer
    clock: MovedClock

    async def required(self, types: Iterable[str]) -> set[str]:
        """Return the types of a message that require an audience."""
        return set(await self.authorizer.audience_required(set(types)))

    def soon(self, types: Iterable[str]) -> asyncio.Task[set[str]]:
        """Start to ask, while the test goes on."""
        return asyncio.ensure_future(self.required(types))


@contextlib.asynccontextmanager
async def asking_registry(counted: Counted) -> AsyncIterator[Asking]:
    """Return a client of the counting registry."""
    clock = MovedClock()
    async with open_channel(counted.target, retried=RETRIED) as channel:
        yield Asking(EmitterAuthorizer(RegistryClient(channel, TOKEN), clock), clock)


def bearer(key: str) -> str:
    """Return the authorization that an emitter sends with a key."""
    return f"Bearer {key}"
