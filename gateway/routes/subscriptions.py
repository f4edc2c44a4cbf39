"""Subscriptions: the routes that create, read, change, pause, delete, verify and test subscriptions, and manage their signing secrets."""

from aiohttp import web
from hooktide.delivery.v1.delivery_pb2 import SendTestEventRequest, VerifySinkRequest
from hooktide.subscription.v1 import subscription_pb2 as pb

from gateway.idempotency import request_id_of
from gateway.preconditions import etag_to_match, is_current
from gateway.request_body import MERGE_PATCH, BodyReader
from gateway.responses import etag_response, json_response, no_content, not_modified, page_response
from gateway.router import OWNERS, Call, Route
from gateway.translate import subscriptions as translate
from gateway.translate.body_fields import BodyFields
from gateway.translate.deliveries import attempt_json
from gateway.translate.query_parameters import PAGE_PARAMETERS, QueryParameters
from gateway.upstreams import Upstreams
from services.runtime.errors import Failure, Reason

_ALL = "/v1/subscriptions"
_ONE = "/v1/subscriptions/{id}"
# Calls that wait for a sink get longer deadlines than others: an attempt may take a minute, and its access token ten seconds.
_VERIFY_S, _TEST_S = 40.0, 90.0


class Subscriptions:
    """The handlers. A consumer's key acts for its consumer, an administrator's key for all."""

    def __init__(self, upstreams: Upstreams, body_reader: BodyReader) -> None:
        self._upstreams = upstreams
        self._body_reader = body_reader

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [
            Route("POST", _ALL, self.create, OWNERS),
            Route("GET", _ALL, self.list, OWNERS, PAGE_PARAMETERS),
            Route("GET", _ONE, self.get, OWNERS),
            Route("PUT", _ONE, self.replace, OWNERS),
            Route("PATCH", _ONE, self.patch, OWNERS),
            Route("DELETE", _ONE, self.delete, OWNERS),
            Route("GET", f"{_ONE}/secret", self.secrets, OWNERS),
            Route("POST", f"{_ONE}/secret/rotate", self.rotate, OWNERS),
            Route("POST", f"{_ONE}/pause", self.pause, OWNERS),
            Route("POST", f"{_ONE}/resume", self.resume, OWNERS),
            Route("POST", f"{_ONE}/verify", self.verify, OWNERS),
            Route("POST", f"{_ONE}/test", self.test, OWNERS),
        ]

    async def create(self, call: Call) -> web.Response:
        """Return 201 with `Location`, the subscription and its signing secret."""
        request_id = request_id_of(call)
        request = translate.create_request(call.caller, await self._body_reader.read(call.request), request_id)
        answer = await self._upstreams.call(self._upstreams.subscriptions.CreateSubscription, request)
        body = {**translate.subscription_json(answer.subscription), "secret": answer.secret.secret}
        headers = {"location": f"{_ALL}/{answer.subscription.id}", "etag": f'"{answer.subscription.etag}"'}
        return json_response(body, status=201, headers=headers)

    async def list(self, call: Call) -> web.Response:
        """Return a page, oldest first."""
        query = QueryParameters(call.query)
        request = pb.ListSubscriptionsRequest(consumer_id=call.caller.scope.text, page_size=query.limit(), page_token=query.text("cursor"))
        query.done()
        answer = await self._upstreams.call(self._upstreams.subscriptions.ListSubscriptions, request)
        return page_response([translate.subscription_json(item) for item in answer.subscriptions], answer.next_page_token)

    async def get(self, call: Call) -> web.Response:
        """Return 200 with an ETag, or 304."""
        current = await self._current(call)
        if is_current(call, current.etag):
            return not_modified(current.etag)
        return etag_response(translate.subscription_json(current), current.etag)

    async def replace(self, call: Call) -> web.Response:
        """Replace the whole subscription."""
        etag = etag_to_match(call)
        body = await self._body_reader.read(call.request)
        return await self._updated(translate.replace_request(call.caller.scope, call.path["id"], body, etag))

    async def patch(self, call: Call) -> web.Response:
        """Merge a patch; if it changes nothing, return the subscription as it is."""
        etag = etag_to_match(call)
        patch = translate.parse_patch(await self._body_reader.read(call.request, MERGE_PATCH))
        if patch.paths:
            return await self._updated(translate.update_request(call.caller.scope, call.path["id"], patch, etag))
        current = await self._current(call)
        if etag not in {"", current.etag}:
            raise Failure(
                Reason.ETAG_MISMATCH,
                "The subscription has changed since its ETag was read; read it again, and decide whether your change still applies.",
            )
        return etag_response(translate.subscription_json(current), current.etag)

    async def delete(self, call: Call) -> web.Response:
        """Return 204; a second call gets 404."""
        request = pb.DeleteSubscriptionRequest(consumer_id=call.caller.scope.text, id=call.path["id"], etag=etag_to_match(call))
        await self._upstreams.call(self._upstreams.subscriptions.DeleteSubscription, request)
        return no_content()

    async def secrets(self, call: Call) -> web.Response:
        """Return the secrets that sign now, and the public halves of the keys that do, the newest first."""
        request = pb.GetSecretsRequest(consumer_id=call.caller.scope.text, subscription_id=call.path["id"])
        answer = await self._upstreams.call(self._upstreams.subscriptions.GetSecrets, request)
        secrets, keys = [translate.secret_json(secret) for secret in answer.secrets], [translate.key_json(key) for key in answer.keys]
        return json_response({"secrets": secrets, "keys": keys})

    async def rotate(self, call: Call) -> web.Response:
        """Return the new secret, or the public half of the new key. It is generated unless the body has one."""
        request_id = request_id_of(call)
        body = await self._body_reader.read(call.request, optional=True)
        request = translate.rotate_request(call.caller.scope, call.path["id"], body, request_id)
        answer = await self._upstreams.call(self._upstreams.subscriptions.RotateSecret, request)
        return json_response(translate.rotated_json(answer))

    async def pause(self, call: Call) -> web.Response:
        """Return the paused subscription; nothing is sent to its sink more than 2 seconds later."""
        BodyFields(await self._body_reader.read(call.request, optional=True)).done()
        request = pb.PauseSubscriptionRequest(consumer_id=call.caller.scope.text, id=call.path["id"])
        paused = (await self._upstreams.call(self._upstreams.subscriptions.PauseSubscription, request)).subscription
        return etag_response(translate.subscription_json(paused), paused.etag)

    async def resume(self, call: Call) -> web.Response:
        """Return the resumed subscription; one that was disabled is enabled again."""
        BodyFields(await self._body_reader.read(call.request, optional=True)).done()
        request = pb.ResumeSubscriptionRequest(consumer_id=call.caller.scope.text, id=call.path["id"])
        resumed = (await self._upstreams.call(self._upstreams.subscriptions.ResumeSubscription, request)).subscription
        return etag_response(translate.subscription_json(resumed), resumed.etag)

    async def verify(self, call: Call) -> web.Response:
        """Start a sink verification, and return the subscription with the result."""
        BodyFields(await self._body_reader.read(call.request, optional=True)).done()
        request = VerifySinkRequest(consumer_id=call.caller.scope.text, subscription_id=call.path["id"])
        await self._upstreams.call(self._upstreams.ledger.VerifySink, request, timeout_s=_VERIFY_S)
        current = await self._current(call)
        return etag_response(translate.subscription_json(current), current.etag)

    async def test(self, call: Call) -> web.Response:
        """Send a test event to the sink, and return the attempt. A failure of the sink is not an error of this call."""
        BodyFields(await self._body_reader.read(call.request, optional=True)).done()
        request = SendTestEventRequest(consumer_id=call.caller.scope.text, subscription_id=call.path["id"])
        answer = await self._upstreams.call(self._upstreams.ledger.SendTestEvent, request, timeout_s=_TEST_S)
        return json_response({"event_id": answer.event_id, "attempt": attempt_json(answer.attempt)})

    async def _current(self, call: Call) -> pb.Subscription:
        request = pb.GetSubscriptionRequest(consumer_id=call.caller.scope.text, id=call.path["id"])
        return (await self._upstreams.call(self._upstreams.subscriptions.GetSubscription, request)).subscription

    async def _updated(self, request: pb.UpdateSubscriptionRequest) -> web.Response:
        answer = await self._upstreams.call(self._upstreams.subscriptions.UpdateSubscription, request)
        return etag_response(translate.subscription_json(answer.subscription), answer.subscription.etag)
