"""Health server: the standard gRPC health service (grpc.health.v1), for the whole server and for each of its services by name.

Law: a watcher that reads nothing delays no other watcher. The server's limits for calls bound how many watch at once.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

HEALTH_METHODS = tuple(f"/grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch"))

Context = grpc.aio.ServicerContext[Any, Any]


class HealthServer(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # the package has no stubs for it
    """Answers whether the server takes calls: one state for all names that it serves. The name "" is the server itself."""

    def __init__(self, names: Iterable[str]) -> None:
        """Answer for these names (``package.Service``) and for ""; the state is NOT_SERVING at first."""
        self._names = frozenset(["", *names])
        self._serving = False
        self._stopping = False
        self._changed = asyncio.Event()

    def set_serving(self, *, serving: bool) -> None:
        """Change the state and tell all watchers."""
        self._serving = serving
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """Answer NOT_SERVING from now on, and end all watches after their last answer."""
        self._stopping = True
        self.set_serving(serving=False)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """Return the state of one name; NOT_FOUND for a name that the server does not serve."""
        if request.service not in self._names:
            message = "This server has no such service; leave the name empty to check the server itself."
            await context.abort(grpc.StatusCode.NOT_FOUND, message)
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def List(self, _request: health_pb2.HealthListRequest, _context: Context) -> health_pb2.HealthListResponse:
        """Return the states of all names."""
        statuses = {name: health_pb2.HealthCheckResponse(status=self._status(name)) for name in self._names}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: health_pb2.HealthCheckRequest, _context: Context) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Stream the state of one name, now and after every change."""
        last: health_pb2.HealthCheckResponse.ServingStatus | None = None
        while True:
            changed = self._changed
            status = self._status(request.service)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
                last = status
            if self._stopping:
                return
            await changed.wait()

    def _status(self, name: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        if name not in self._names:
            return _SERVICE_UNKNOWN
        return _SERVING if self._serving else _NOT_SERVING
