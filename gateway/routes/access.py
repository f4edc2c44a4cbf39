"""Access: the routes of consumers and API keys, for administrators, and whoami for everyone."""

from aiohttp import web
from hooktide.subscription.v1 import access_pb2 as pb

from gateway.answers import json_answer, no_content, page_answer
from gateway.bodies import Bodies
from gateway.conditions import request_id_of
from gateway.router import ADMINS, EVERYONE, Call, Route
from gateway.translate import access as translate
from gateway.translate.values import PAGE_PARAMETERS, Query
from gateway.upstreams import Peers


class Access:
    """The handlers."""

    def __init__(self, peers: Peers, bodies: Bodies) -> None:
        self._peers = peers
        self._bodies = bodies

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [
            Route("GET", "/v1/whoami", self.whoami, EVERYONE),
            Route("POST", "/v1/consumers", self.create_consumer, ADMINS),
            Route("GET", "/v1/consumers", self.list_consumers, ADMINS, PAGE_PARAMETERS),
            Route("GET", "/v1/consumers/{id}", self.get_consumer, ADMINS),
            Route("POST", "/v1/keys", self.create_key, ADMINS),
            Route("GET", "/v1/keys", self.list_keys, ADMINS, PAGE_PARAMETERS),
            Route("GET", "/v1/keys/{id}", self.get_key, ADMINS),
            Route("DELETE", "/v1/keys/{id}", self.revoke_key, ADMINS),
        ]

    async def whoami(self, call: Call) -> web.Response:
        """Return the caller's own key, without its clear text."""
        return json_answer(call.caller.shown)

    async def create_consumer(self, call: Call) -> web.Response:
        """Return 201 with `Location`."""
        request_id = request_id_of(call)
        request = translate.create_consumer_request(await self._bodies.read(call.request), request_id)
        consumer = (await self._peers.call(self._peers.access.CreateConsumer, request)).consumer
        return json_answer(translate.consumer_json(consumer), status=201, headers={"location": f"/v1/consumers/{consumer.id}"})

    async def list_consumers(self, call: Call) -> web.Response:
        """Return a page, oldest first."""
        query = Query(call.query)
        request = pb.ListConsumersRequest(page_size=query.limit(), page_token=query.text("cursor"))
        query.done()
        answer = await self._peers.call(self._peers.access.ListConsumers, request)
        return page_answer([translate.consumer_json(consumer) for consumer in answer.consumers], answer.next_page_token)

    async def get_consumer(self, call: Call) -> web.Response:
        """Return one consumer."""
        answer = await self._peers.call(self._peers.access.GetConsumer, pb.GetConsumerRequest(id=call.path["id"]))
        return json_answer(translate.consumer_json(answer.consumer))

    async def create_key(self, call: Call) -> web.Response:
        """Return 201 with `Location` and the key in clear; only this answer shows the clear key."""
        request_id = request_id_of(call)
        request = translate.create_key_request(await self._bodies.read(call.request), request_id)
        answer = await self._peers.call(self._peers.access.CreateKey, request)
        body = {**translate.key_json(answer.key), "key": answer.clear_text}
        return json_answer(body, status=201, headers={"location": f"/v1/keys/{answer.key.id}"})

    async def list_keys(self, call: Call) -> web.Response:
        """Return a page, oldest first, without clear texts."""
        query = Query(call.query)
        request = pb.ListKeysRequest(page_size=query.limit(), page_token=query.text("cursor"))
        query.done()
        answer = await self._peers.call(self._peers.access.ListKeys, request)
        return page_answer([translate.key_json(key) for key in answer.keys], answer.next_page_token)

    async def get_key(self, call: Call) -> web.Response:
        """Return one key, without its clear text."""
        answer = await self._peers.call(self._peers.access.GetKey, pb.GetKeyRequest(id=call.path["id"]))
        return json_answer(translate.key_json(answer.key))

    async def revoke_key(self, call: Call) -> web.Response:
        """Return 204; the key stops working within 2 seconds."""
        await self._peers.call(self._peers.access.RevokeKey, pb.RevokeKeyRequest(id=call.path["id"]))
        return no_content()
