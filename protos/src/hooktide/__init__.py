"""Hooktide's contract: the gRPC stubs and the emitter client.

::

    async with hooktide.Emitter("localhost:50052", key="hkt_…") as emitter:
        receipt = await emitter.emit(type="order.created", source="/shop", data={"id": 7})
"""

from hooktide._errors import EmitError, EmitterClosed, EventConflict, InvalidEvent, LogFull, NotAuthorized, Unavailable
from hooktide._receipt import Receipt
from hooktide._sync import SyncEmitter
from hooktide.emitter import Emitter

__all__ = [
    "EmitError",
    "Emitter",
    "EmitterClosed",
    "EventConflict",
    "InvalidEvent",
    "LogFull",
    "NotAuthorized",
    "Receipt",
    "SyncEmitter",
    "Unavailable",
]

# Tracebacks and logs show the names that callers import.
for _name in __all__:
    globals()[_name].__module__ = __name__
