"""Reflection client: asks a gRPC server to describe itself."""

import asyncio
from collections.abc import AsyncIterator

from grpc_reflection.v1alpha import reflection_pb2 as pb

from services.runtime.rpc.channel_and_server import open_channel


async def asked(target: str, version: str, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
    """Ask a server to describe itself, without credentials."""
    async with open_channel(target) as channel, asyncio.timeout(10):
        method = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            pb.ServerReflectionRequest.SerializeToString,
            pb.ServerReflectionResponse.FromString,
        )

        async def requests() -> AsyncIterator[pb.ServerReflectionRequest]:
            yield request

        # A call that is given its requests reports the server's refusal even if that comes before the first request is written.
        call = method(requests())
        answer = await call.read()
        assert isinstance(answer, pb.ServerReflectionResponse)
        call.cancel()
        return answer
