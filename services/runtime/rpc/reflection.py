"""Reflection: lets a server describe its services, so that tools such as grpcurl need no `.proto` files.

The library knows the protocol's version v1alpha. Version v1 has the same messages, so it is served under both names.
"""

from collections.abc import Iterable

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

_VERSIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
REFLECTION_METHODS = tuple(f"/{version}/ServerReflectionInfo" for version in _VERSIONS)


def reflection_handlers(names: Iterable[str]) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return the handlers that describe the services of these names (``package.Service``) and the types of their messages."""
    servicer = reflection.aio.ReflectionServicer(sorted([*names, "grpc.health.v1.Health", *_VERSIONS]))
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return tuple(grpc.method_handlers_generic_handler(version, {"ServerReflectionInfo": method}) for version in _VERSIONS)
