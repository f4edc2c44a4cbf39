"""History: the routes that read events and deliveries."""

from aiohttp import web
from hooktide.delivery.v1 import delivery_pb2
from hooktide.ingest.v1 import event_log_pb2

from gateway.answers import json_answer, page_answer
from gateway.router import OWNERS, Call, Route
from gateway.translate import history as translate
from gateway.upstreams import Peers


class History:
    """The handlers. A consumer sees the events for all consumers and for itself, and its own deliveries."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [
            Route("GET", "/v1/events", self.list_events, OWNERS, translate.EVENT_FILTERS),
            Route("GET", "/v1/events/{id}", self.get_event, OWNERS),
            Route("GET", "/v1/deliveries", self.list_deliveries, OWNERS, translate.DELIVERY_FILTERS),
            Route("GET", "/v1/deliveries/{id}", self.get_delivery, OWNERS),
        ]

    async def list_events(self, call: Call) -> web.Response:
        """Return a page, newest first."""
        request = translate.list_events_request(call.caller.scope, call.query)
        answer = await self._peers.call(self._peers.log.ListEvents, request)
        return page_answer([translate.record_json(record) for record in answer.records], answer.next_page_token)

    async def get_event(self, call: Call) -> web.Response:
        """Return one event."""
        request = event_log_pb2.GetEventRequest(consumer_id=call.caller.scope.text, event_id=call.path["id"])
        answer = await self._peers.call(self._peers.log.GetEvent, request)
        return json_answer(translate.record_json(answer.record))

    async def list_deliveries(self, call: Call) -> web.Response:
        """Return a page without attempts, newest event first."""
        request = translate.list_deliveries_request(call.caller.scope, call.query)
        answer = await self._peers.call(self._peers.ledger.ListDeliveries, request)
        return page_answer([translate.delivery_json(delivery) for delivery in answer.deliveries], answer.next_page_token)

    async def get_delivery(self, call: Call) -> web.Response:
        """Return one delivery with its attempts."""
        request = delivery_pb2.GetDeliveryRequest(consumer_id=call.caller.scope.text, id=call.path["id"])
        answer = await self._peers.call(self._peers.ledger.GetDelivery, request)
        return json_answer(translate.delivery_with_attempts_json(answer.delivery))
