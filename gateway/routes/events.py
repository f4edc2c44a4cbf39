"""Events: the routes that read accepted events from the event log."""

from aiohttp import web
from hooktide.ingest.v1.event_log_pb2 import GetEventRequest

from gateway.responses import json_response, page_response
from gateway.router import OWNERS, Call, Route
from gateway.translate import events as translate
from gateway.upstreams import Upstreams


class Events:
    """The handlers. A consumer sees the events for all consumers and for itself."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [
            Route("GET", "/v1/events", self.list, OWNERS, translate.EVENT_FILTERS),
            Route("GET", "/v1/events/{id}", self.get, OWNERS),
        ]

    async def list(self, call: Call) -> web.Response:
        """Return a page, newest first."""
        request = translate.list_events_request(call.caller.scope, call.query)
        answer = await self._upstreams.call(self._upstreams.log.ListEvents, request)
        return page_response([translate.record_json(record) for record in answer.records], answer.next_page_token)

    async def get(self, call: Call) -> web.Response:
        """Return one event."""
        request = GetEventRequest(consumer_id=call.caller.scope.text, event_id=call.path["id"])
        answer = await self._upstreams.call(self._upstreams.log.GetEvent, request)
        return json_response(translate.record_json(answer.record))
