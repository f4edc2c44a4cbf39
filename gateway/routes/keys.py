"""Keys: the routes that create, read and revoke API keys, for administrators, and whoami for every key."""

from aiohttp import web
from hooktide.subscription.v1 import access_pb2 as pb

from gateway.idempotency import request_id_of
from gateway.request_body import BodyReader
from gateway.responses import json_response, no_content, page_response
from gateway.router import ADMINS, ANY_ROLE, Call, Route
from gateway.translate import keys as translate
from gateway.translate.query_parameters import PAGE_PARAMETERS, QueryParameters
from gateway.upstreams import Upstreams


class Keys:
    """The handlers."""

    def __init__(self, upstreams: Upstreams, body_reader: BodyReader) -> None:
        self._upstreams = upstreams
        self._body_reader = body_reader

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [
            Route("POST", "/v1/keys", self.create, ADMINS),
            Route("GET", "/v1/keys", self.list, ADMINS, PAGE_PARAMETERS),
            Route("GET", "/v1/keys/{id}", self.get, ADMINS),
            Route("DELETE", "/v1/keys/{id}", self.revoke, ADMINS),
            Route("GET", "/v1/whoami", self.whoami, ANY_ROLE),
        ]

    async def create(self, call: Call) -> web.Response:
        """Return 201 with `Location` and the key in clear; only this answer shows the clear key."""
        request_id = request_id_of(call)
        request = translate.create_key_request(await self._body_reader.read(call.request), request_id)
        answer = await self._upstreams.call(self._upstreams.access.CreateKey, request)
        body = {**translate.key_json(answer.key), "key": answer.clear_text}
        return json_response(body, status=201, headers={"location": f"/v1/keys/{answer.key.id}"})

    async def list(self, call: Call) -> web.Response:
        """Return a page, oldest first, without clear texts."""
        query = QueryParameters(call.query)
        request = pb.ListKeysRequest(page_size=query.limit(), page_token=query.text("cursor"))
        query.done()
        answer = await self._upstreams.call(self._upstreams.access.ListKeys, request)
        return page_response([translate.key_json(key) for key in answer.keys], answer.next_page_token)

    async def get(self, call: Call) -> web.Response:
        """Return one key, without its clear text."""
        answer = await self._upstreams.call(self._upstreams.access.GetKey, pb.GetKeyRequest(id=call.path["id"]))
        return json_response(translate.key_json(answer.key))

    async def revoke(self, call: Call) -> web.Response:
        """Return 204; the key stops working within 2 seconds."""
        await self._upstreams.call(self._upstreams.access.RevokeKey, pb.RevokeKeyRequest(id=call.path["id"]))
        return no_content()

    async def whoami(self, call: Call) -> web.Response:
        """Return the caller's own key, without its clear text."""
        return json_response(call.caller.shown)
