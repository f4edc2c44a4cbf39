"""Event types: the routes that read the catalogue of event types."""

from aiohttp import web
from hooktide.subscription.v1 import catalogue_pb2 as pb

from gateway.preconditions import is_current
from gateway.responses import etag_response, not_modified, page_response
from gateway.router import ANY_ROLE, Call, Route
from gateway.translate.event_types import event_type_json
from gateway.translate.query_parameters import PAGE_PARAMETERS, QueryParameters
from gateway.upstreams import Upstreams


class EventTypes:
    """The handlers."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [
            Route("GET", "/v1/event-types", self.list, ANY_ROLE, PAGE_PARAMETERS),
            Route("GET", "/v1/event-types/{name}", self.get, ANY_ROLE),
        ]

    async def list(self, call: Call) -> web.Response:
        """Return a page, sorted by name."""
        query = QueryParameters(call.query)
        request = pb.ListEventTypesRequest(page_size=query.limit(), page_token=query.text("cursor"))
        query.done()
        answer = await self._upstreams.call(self._upstreams.catalogue.ListEventTypes, request)
        return page_response([event_type_json(event_type) for event_type in answer.event_types], answer.next_page_token)

    async def get(self, call: Call) -> web.Response:
        """Return 200 with an ETag, or 304."""
        request = pb.GetEventTypeRequest(name=call.path["name"])
        event_type = (await self._upstreams.call(self._upstreams.catalogue.GetEventType, request)).event_type
        if is_current(call, event_type.etag):
            return not_modified(event_type.etag)
        return etag_response(event_type_json(event_type), event_type.etag)
