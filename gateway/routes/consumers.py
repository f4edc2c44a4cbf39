"""Consumers: the routes that create, read, pause and resume consumers, for administrators."""

from aiohttp import web
from hooktide.subscription.v1 import access_pb2 as pb

from gateway.idempotency import request_id_of
from gateway.request_body import BodyReader
from gateway.responses import json_response, page_response
from gateway.router import ADMINS, Call, Route
from gateway.translate import consumers as translate
from gateway.translate.body_fields import BodyFields
from gateway.translate.query_parameters import PAGE_PARAMETERS, QueryParameters
from gateway.upstreams import Upstreams


class Consumers:
    """The handlers."""

    def __init__(self, upstreams: Upstreams, body_reader: BodyReader) -> None:
        self._upstreams = upstreams
        self._body_reader = body_reader

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [
            Route("POST", "/v1/consumers", self.create, ADMINS),
            Route("GET", "/v1/consumers", self.list, ADMINS, PAGE_PARAMETERS),
            Route("GET", "/v1/consumers/{id}", self.get, ADMINS),
            Route("POST", "/v1/consumers/{id}/pause", self.pause, ADMINS),
            Route("POST", "/v1/consumers/{id}/resume", self.resume, ADMINS),
        ]

    async def create(self, call: Call) -> web.Response:
        """Return 201 with `Location`."""
        request_id = request_id_of(call)
        request = translate.create_consumer_request(await self._body_reader.read(call.request), request_id)
        consumer = (await self._upstreams.call(self._upstreams.access.CreateConsumer, request)).consumer
        return json_response(translate.consumer_json(consumer), status=201, headers={"location": f"/v1/consumers/{consumer.id}"})

    async def list(self, call: Call) -> web.Response:
        """Return a page, oldest first."""
        query = QueryParameters(call.query)
        request = pb.ListConsumersRequest(page_size=query.limit(), page_token=query.text("cursor"))
        query.done()
        answer = await self._upstreams.call(self._upstreams.access.ListConsumers, request)
        return page_response([translate.consumer_json(consumer) for consumer in answer.consumers], answer.next_page_token)

    async def get(self, call: Call) -> web.Response:
        """Return one consumer."""
        answer = await self._upstreams.call(self._upstreams.access.GetConsumer, pb.GetConsumerRequest(id=call.path["id"]))
        return json_response(translate.consumer_json(answer.consumer))

    async def pause(self, call: Call) -> web.Response:
        """Return the paused consumer; nothing is sent to its sinks more than 2 seconds later."""
        BodyFields(await self._body_reader.read(call.request, optional=True)).done()
        request = pb.PauseConsumerRequest(id=call.path["id"], key_id=call.caller.key_id)
        answer = await self._upstreams.call(self._upstreams.access.PauseConsumer, request)
        return json_response(translate.consumer_json(answer.consumer))

    async def resume(self, call: Call) -> web.Response:
        """Return the resumed consumer."""
        BodyFields(await self._body_reader.read(call.request, optional=True)).done()
        answer = await self._upstreams.call(self._upstreams.access.ResumeConsumer, pb.ResumeConsumerRequest(id=call.path["id"]))
        return json_response(translate.consumer_json(answer.consumer))
