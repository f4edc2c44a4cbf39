"""Verifications: the route by which a sink, or its administrator, consents later. The token in the path authorizes the request.

A browser's GET is enough, as in CloudEvents HTTP 1.1 Web Hooks: an administrator may find the address in a log and open it.
"""

import re

from aiohttp import web
from hooktide.subscription.v1.subscription_pb2 import ConfirmVerificationRequest

from gateway.problems import FailureWithHeaders, invalid_request
from gateway.responses import json_response
from gateway.router import Call, Route
from gateway.upstreams import Upstreams
from services.runtime.errors import Failure, FieldError, Reason

PATH = "/v1/verifications/{token}"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_RATE_HEADER = "webhook-allowed-rate"
_ANY_RATE = "*"
_RATE = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


class Verifications:
    """The handlers."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [Route("GET", PATH, self.confirm, None), Route("POST", PATH, self.confirm, None)]

    async def confirm(self, call: Call) -> web.Response:
        """Return 200 with the permitted rate once the consent is recorded; repeating the request gets 200 too."""
        if call.request.method == "HEAD":
            raise FailureWithHeaders(
                Reason.METHOD_NOT_ALLOWED, "HEAD does not give consent; send GET or POST.", headers={"allow": "GET, POST"}
            )
        if _TOKEN.fullmatch(call.path["token"]) is None:
            raise Failure(Reason.VERIFICATION_NOT_FOUND, "Hooktide has not given out this address; check that it is complete.")
        rate = _rate_of(call.request)
        request = ConfirmVerificationRequest(token=call.path["token"], rate_per_minute=rate)
        await self._upstreams.call(self._upstreams.subscriptions.ConfirmVerification, request)
        return json_response({"state": "granted", "rate_per_minute": rate})


def _rate_of(request: web.BaseRequest) -> int | None:
    """Return how many requests a minute the sink permits; None if it sets no limit."""
    sent = request.headers.getall(_RATE_HEADER, [])
    if not sent or sent == [_ANY_RATE]:
        return None
    if len(sent) > 1 or _RATE.fullmatch(sent[0]) is None:
        raise invalid_request(
            [FieldError("WebHook-Allowed-Rate:", f'must be a whole number of requests a minute, above 0, or "{_ANY_RATE}"')]
        )
    return int(sent[0])
