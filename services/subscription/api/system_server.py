"""System server: SystemService over gRPC.

gateway ─gRPC─▶ [system_server] → validation → system → store
"""

from collections.abc import Callable
from typing import Any

import grpc
from hooktide.subscription.v1 import system_pb2 as pb
from hooktide.subscription.v1 import system_pb2_grpc

from services.subscription.api import wire
from services.subscription.model import Pause
from services.subscription.rules.pause import new_pause
from services.subscription.rules.validation import key_id_problems, refuse
from services.subscription.store import system
from services.subscription.store.store import Store
from services.subscription.store.transaction import Writing

Context = grpc.aio.ServicerContext[Any, Any]


class SystemServer(system_pb2_grpc.SystemServiceServicer):
    """Serves what holds for the whole system."""

    def __init__(self, store: Store, events_kept_ms: Callable[[], int]) -> None:
        """`events_kept_ms` returns for how long an event that waits is kept after its acceptance."""
        self._store = store
        self._events_kept_ms = events_kept_ms

    async def GetSystem(self, _request: pb.GetSystemRequest, _context: Context) -> pb.GetSystemResponse:
        """Return whether all deliveries are paused."""
        return pb.GetSystemResponse(system=_message(await self._store.read_confirmed(system.get_pause)))

    async def PauseSystem(self, request: pb.PauseSystemRequest, _context: Context) -> pb.PauseSystemResponse:
        """Pause all deliveries."""
        refuse(key_id_problems(request.key_id))

        def pause(writing: Writing) -> Pause:
            return system.pause(writing, new_pause(request.key_id, writing.now_ms, self._events_kept_ms()))

        return pb.PauseSystemResponse(system=_message(await self._store.write(pause)))

    async def ResumeSystem(self, _request: pb.ResumeSystemRequest, _context: Context) -> pb.ResumeSystemResponse:
        """Resume deliveries."""
        await self._store.write(system.resume)
        return pb.ResumeSystemResponse(system=_message(None))


def _message(pause: Pause | None) -> pb.System:
    return pb.System(pause=wire.pause_message(pause))
