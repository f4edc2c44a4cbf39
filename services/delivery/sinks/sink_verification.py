"""Sink verification: asks a subscription's sink for its consent, and reports the answer to the registry.

gateway ─gRPC─▶ server → [sink_verification] → transport → sink
                            └────gRPC────▶ registry

Law 1: the registry gets a report, whatever the sink does. `verification_protocol` alone decides what the sink's answer means.
Law 2: sinks that do not answer hold at most their caller's share of the calls, so that other callers can verify meanwhile.
"""

import asyncio
from typing import assert_never

import grpc
from hooktide.subscription.v1 import subscription_pb2 as pb
from hooktide.subscription.v1 import subscription_pb2_grpc

from services.delivery.request.credentials import OAuth2, headers_of
from services.delivery.request.redaction import redacted, secrets_of
from services.delivery.request.request_builder import USER_AGENT
from services.delivery.request.request_settings import tls_of
from services.delivery.sinks import verification_protocol
from services.delivery.subscriptions.wire import request_settings_of
from services.delivery.transport.protocol import Answer, Request, Transport
from services.runtime.consumer_scope import Scope
from services.runtime.errors import Failure, Reason, failure_from_rpc
from services.runtime.fair_semaphore import FairSemaphore, PermitRefusedError, ShareNow
from services.runtime.rpc.access import ServiceToken
from services.runtime.rpc.channel_and_server import service_metadata

ANSWER_S = 10.0
_CALL_S = 5.0
_DETAIL_CHARS_MAX = 500
_TURN_WITHIN_S = 5.0
_RETRY_S = 1.0


class SinkVerifier:
    """Asks sinks in the name of `origin`; `public_url` is the gateway's URL as seen from outside, "" if unknown."""

    def __init__(
        self,
        registry: grpc.aio.Channel,
        service_token: ServiceToken,
        transport: Transport,
        *,
        origin: str,
        public_url: str,
        share: ShareNow,
    ) -> None:
        """`share` bounds the calls of `verify` under way, in all and for one caller."""
        self._registry = subscription_pb2_grpc.SubscriptionServiceStub(registry)
        self._metadata = service_metadata(service_token)
        self._transport = transport
        self._origin = origin
        self._public_url = public_url
        self._permits = FairSemaphore(share, owner_waiting_max=0)

    async def verify(self, scope: Scope, subscription_id: str) -> None:
        """Ask the sink of a subscription in the caller's scope, and report its answer to the registry.

        Raises OVERLOADED if the caller has too many such calls under way, STATE_CONFLICT if `origin` is empty, and the
        registry's failures: SUBSCRIPTION_NOT_FOUND, STATE_CONFLICT, OVERLOADED, ETAG_MISMATCH.
        """
        try:
            async with self._permits.permit(scope.text, _TURN_WITHIN_S):
                await self.ask(scope, subscription_id)
        except PermitRefusedError:
            message = "Too many verifications are under way; verify again once some of your own have ended."
            raise Failure(Reason.OVERLOADED, message, retry_after_s=_RETRY_S) from None

    async def ask(self, scope: Scope, subscription_id: str) -> None:
        """Do the same as `verify` without the bound by `share`; raises STATE_CONFLICT if `origin` is empty, and the registry's failures."""
        begin = pb.BeginVerificationRequest(consumer_id=scope.text, subscription_id=subscription_id)
        try:
            begun = await self._registry.BeginVerification(begin, metadata=self._metadata, timeout=_CALL_S)
            if not self._origin:
                raise Failure(Reason.STATE_CONFLICT, "The delivery service has no name to ask by; the operator has to set HOOKTIDE_ORIGIN.")
            verification = await self._asked(begun.subscription, begun.callback_token)
            report = pb.ReportVerificationRequest(
                subscription_id=subscription_id,
                sink_revision=begun.subscription.subscription.sink_revision,
                verification=verification,
            )
            await self._registry.ReportVerification(report, metadata=self._metadata, timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            raise failure_from_rpc(error) from None

    async def _asked(self, watched: pb.WatchedSubscription, callback_token: str) -> pb.Verification:
        config, settings = watched.subscription.config, request_settings_of(watched)
        callback_url = verification_protocol.callback_url(self._public_url, callback_token)
        question = verification_protocol.request_headers(
            self._origin,
            callback_url=callback_url,
            rate_per_second=config.rate_per_second if config.HasField("rate_per_second") else None,
        )
        # Do not fetch an access token for this: the sink has not yet agreed to receive events.
        credential = {} if isinstance(settings.credential, OAuth2) else headers_of(settings.credential)
        headers = {**settings.headers, **credential, "user-agent": USER_AGENT, **question}
        owner = watched.subscription.consumer_id
        request = Request(
            watched.subscription.sink, headers, b"", verification_protocol.METHOD, ANSWER_S, tls_of(settings), owner=owner, whole=True
        )
        answer = await self._sent(request)
        if not answer.status:
            return pb.Verification(state=pb.VERIFICATION_STATE_FAILED, detail=answer.error[:_DETAIL_CHARS_MAX])
        # The sink's answer is shown to users, and it may repeat secrets that it was sent.
        secrets = (callback_token, *secrets_of(settings.credential, settings.secrets))
        said = [
            (name, redacted(value, secrets))
            for name, value in answer.headers.items()
            if name.startswith(verification_protocol.ANSWER_PREFIX)
        ]
        return _verification(verification_protocol.consent(said, self._origin, callback_offered=bool(callback_url)))

    async def _sent(self, request: Request) -> Answer:
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answered(answer: Answer) -> None:
            # The waiting task may have been cancelled.
            if not done.done():
                done.set_result(answer)

        self._transport.send(request, answered)
        return await done


def _verification(consent: verification_protocol.Consent) -> pb.Verification:
    match consent:
        case verification_protocol.Granted(rate_per_minute):
            return pb.Verification(state=pb.VERIFICATION_STATE_GRANTED, rate_per_minute=rate_per_minute)
        case verification_protocol.Pending(why):
            return pb.Verification(state=pb.VERIFICATION_STATE_PENDING, detail=why[:_DETAIL_CHARS_MAX])
        case verification_protocol.Refused(why):
            return pb.Verification(state=pb.VERIFICATION_STATE_REFUSED, detail=why[:_DETAIL_CHARS_MAX])
        case other:
            assert_never(other)
