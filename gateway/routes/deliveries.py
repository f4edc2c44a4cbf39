"""Deliveries: the routes that read deliveries and their attempts from the ledger."""

from aiohttp import web
from hooktide.delivery.v1.delivery_pb2 import GetDeliveryRequest

from gateway.responses import json_response, page_response
from gateway.router import OWNERS, Call, Route
from gateway.translate import deliveries as translate
from gateway.upstreams import Upstreams


class Deliveries:
    """The handlers. A consumer sees its own deliveries."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [
            Route("GET", "/v1/deliveries", self.list, OWNERS, translate.DELIVERY_FILTERS),
            Route("GET", "/v1/deliveries/{id}", self.get, OWNERS),
        ]

    async def list(self, call: Call) -> web.Response:
        """Return a page without attempts, newest event first."""
        request = translate.list_deliveries_request(call.caller.scope, call.query)
        answer = await self._upstreams.call(self._upstreams.ledger.ListDeliveries, request)
        items = [translate.delivery_json(delivery) for delivery in answer.deliveries]
        return page_response(items, answer.next_page_token, translate.delivery_page_members(answer))

    async def get(self, call: Call) -> web.Response:
        """Return one delivery with its attempts."""
        request = GetDeliveryRequest(consumer_id=call.caller.scope.text, id=call.path["id"])
        answer = await self._upstreams.call(self._upstreams.ledger.GetDelivery, request)
        return json_response(translate.delivery_with_attempts_json(answer.delivery))
