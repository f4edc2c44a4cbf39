"""Catalogue: the routes that list event types."""

from aiohttp import web
from hooktide.subscription.v1 import catalogue_pb2 as pb

from gateway.answers import not_modified, page_answer, tagged_answer
from gateway.conditions import is_current
from gateway.router import EVERYONE, Call, Route
from gateway.translate.catalogue import event_type_json
from gateway.translate.values import PAGE_PARAMETERS, Query
from gateway.upstreams import Peers


class Catalogue:
    """The handlers."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [
            Route("GET", "/v1/event-types", self.list, EVERYONE, PAGE_PARAMETERS),
            Route("GET", "/v1/event-types/{name}", self.get, EVERYONE),
        ]

    async def list(self, call: Call) -> web.Response:
        """Return a page, sorted by name."""
        query = Query(call.query)
        request = pb.ListEventTypesRequest(page_size=query.limit(), page_token=query.text("cursor"))
        query.done()
        answer = await self._peers.call(self._peers.catalogue.ListEventTypes, request)
        return page_answer([event_type_json(event_type) for event_type in answer.event_types], answer.next_page_token)

    async def get(self, call: Call) -> web.Response:
        """Return 200 with an ETag, or 304."""
        request = pb.GetEventTypeRequest(name=call.path["name"])
        event_type = (await self._peers.call(self._peers.catalogue.GetEventType, request)).event_type
        if is_current(call, event_type.etag):
            return not_modified(event_type.etag)
        return tagged_answer(event_type_json(event_type), event_type.etag)
