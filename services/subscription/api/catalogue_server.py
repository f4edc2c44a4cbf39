"""Catalogue server: CatalogueService over gRPC.

gateway, ingest ─gRPC─▶ [catalogue_server] → validation → catalogue → store
"""

from functools import partial
from typing import Any

import grpc
from hooktide.subscription.v1 import catalogue_pb2 as pb
from hooktide.subscription.v1 import catalogue_pb2_grpc

from services.runtime.paging import fitting, page_size, page_token, parse_page_token
from services.subscription.api import wire
from services.subscription.rules.validation import event_type_names_problems, event_type_problems, refuse, required_problems
from services.subscription.store import catalogue
from services.subscription.store.store import Store

Context = grpc.aio.ServicerContext[Any, Any]

_LIST = "event-types"


class CatalogueServer(catalogue_pb2_grpc.CatalogueServiceServicer):
    """Serves the event catalogue."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def GetEventType(self, request: pb.GetEventTypeRequest, _context: Context) -> pb.GetEventTypeResponse:
        """Read one event type."""
        refuse(required_problems("name", request.name))
        found = await self._store.read(partial(catalogue.get, name=request.name))
        return pb.GetEventTypeResponse(event_type=wire.event_type_message(found))

    async def ListEventTypes(self, request: pb.ListEventTypesRequest, _context: Context) -> pb.ListEventTypesResponse:
        """List event types by name."""
        place = parse_page_token(_LIST, request.page_token, (str,))
        found, more = await self._store.read(
            partial(catalogue.page, after_name=str(place[0]) if place else "", size=page_size(request.page_size))
        )
        messages = [wire.event_type_message(event_type) for event_type in found]
        shown = messages[: fitting(message.ByteSize() for message in messages)]
        more = more or len(shown) < len(messages)
        return pb.ListEventTypesResponse(event_types=shown, next_page_token=page_token(_LIST, (shown[-1].name,)) if more else "")

    async def FindAudienceRequired(self, request: pb.FindAudienceRequiredRequest, _context: Context) -> pb.FindAudienceRequiredResponse:
        """Return which of the named event types require an audience."""
        refuse(event_type_names_problems(request.names))
        found = await self._store.read(partial(catalogue.audience_required, names=set(request.names)))
        return pb.FindAudienceRequiredResponse(names=found)

    async def PutEventType(self, request: pb.PutEventTypeRequest, _context: Context) -> pb.PutEventTypeResponse:
        """Write an event type."""
        wanted = request.event_type
        refuse(event_type_problems(wanted.name, wanted.description))
        put = partial(
            catalogue.put,
            name=wanted.name,
            description=wanted.description,
            audience_required=wanted.audience_required,
            etag=request.etag,
        )
        written, created = await self._store.write(put)
        return pb.PutEventTypeResponse(event_type=wire.event_type_message(written), created=created)

    async def DeleteEventType(self, request: pb.DeleteEventTypeRequest, _context: Context) -> pb.DeleteEventTypeResponse:
        """Delete an event type."""
        refuse(required_problems("name", request.name))
        await self._store.write(partial(catalogue.delete, name=request.name, etag=request.etag))
        return pb.DeleteEventTypeResponse()
