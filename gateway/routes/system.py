"""System: the routes that pause and resume all deliveries, for administrators."""

from aiohttp import web
from hooktide.subscription.v1 import system_pb2 as pb

from gateway.request_body import BodyReader
from gateway.responses import json_response
from gateway.router import ADMINS, Call, Route
from gateway.translate.body_fields import BodyFields
from gateway.translate.pauses import system_json
from gateway.upstreams import Upstreams


class System:
    """The handlers."""

    def __init__(self, upstreams: Upstreams, body_reader: BodyReader) -> None:
        self._upstreams = upstreams
        self._body_reader = body_reader

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [
            Route("GET", "/v1/system", self.get, ADMINS),
            Route("POST", "/v1/system/pause", self.pause, ADMINS),
            Route("POST", "/v1/system/resume", self.resume, ADMINS),
        ]

    async def get(self, _call: Call) -> web.Response:
        """Return whether all deliveries are paused, and since when and by which key."""
        answer = await self._upstreams.call(self._upstreams.system.GetSystem, pb.GetSystemRequest())
        return json_response(system_json(answer.system))

    async def pause(self, call: Call) -> web.Response:
        """Pause all deliveries; nothing is sent to any sink more than 2 seconds later."""
        BodyFields(await self._body_reader.read(call.request, optional=True)).done()
        answer = await self._upstreams.call(self._upstreams.system.PauseSystem, pb.PauseSystemRequest(key_id=call.caller.key_id))
        return json_response(system_json(answer.system))

    async def resume(self, call: Call) -> web.Response:
        """Resume deliveries."""
        BodyFields(await self._body_reader.read(call.request, optional=True)).done()
        answer = await self._upstreams.call(self._upstreams.system.ResumeSystem, pb.ResumeSystemRequest())
        return json_response(system_json(answer.system))
