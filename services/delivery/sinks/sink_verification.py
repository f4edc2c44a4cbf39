"""Sink verification: asks a subscription's sink for its consent, and reports the answer to the registry.

gateway ─gRPC─▶ server → [sink_verification] → transport → sink
                            └─ verification_client ─gRPC─▶ registry

Law 1: the registry gets a report, whatever the sink does. `verification_protocol` alone decides what the sink's answer means.
Law 2: sinks that do not answer hold at most their caller's share of the calls, so that other callers can verify meanwhile.
"""

import functools

from services.delivery.request.credentials import OAuth2, headers_of
from services.delivery.request.redaction import redacted, secrets_of
from services.delivery.request.request_builder import USER_AGENT
from services.delivery.request.request_settings import tls_of
from services.delivery.sinks import verification_protocol
from services.delivery.sinks.verification_client import BegunVerification, VerificationClient
from services.delivery.sinks.verification_protocol import Unanswered, Verification
from services.delivery.transport.protocol import Request, Transport, awaited_answer
from services.runtime.consumer_scope import Scope
from services.runtime.errors import Failure, Reason
from services.runtime.fair_semaphore import FairSemaphore, PermitRefusedError, ShareNow

ANSWER_S = 10.0
_TURN_WITHIN_S = 5.0
_RETRY_S = 1.0


class SinkVerifier:
    """Asks sinks in the name of `origin`; `public_url` is the gateway's URL as seen from outside, "" if unknown."""

    def __init__(self, registry: VerificationClient, transport: Transport, *, origin: str, public_url: str, share: ShareNow) -> None:
        """`share` bounds the calls of `verify` under way, in all and for one caller."""
        self._registry = registry
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
            message = "Too many of your sink verifications are under way; try again after some of them end."
            raise Failure(Reason.OVERLOADED, message, retry_after_s=_RETRY_S) from None

    async def ask(self, scope: Scope, subscription_id: str) -> None:
        """Do the same as `verify` without the bound by `share`; raises STATE_CONFLICT if `origin` is empty, and the registry's failures."""
        begun = await self._registry.begin(scope, subscription_id)
        if not self._origin:
            raise Failure(
                Reason.STATE_CONFLICT, "The delivery service has no origin for sink verification; the operator must set HOOKTIDE_ORIGIN."
            )
        verification = await self._verification(begun)
        await self._registry.report(subscription_id, begun.subscription.settings.sink_revision, verification)

    async def _verification(self, begun: BegunVerification) -> Verification:
        subscription, callback_token = begun.subscription, begun.callback_token
        settings = subscription.settings
        callback_url = verification_protocol.callback_url(self._public_url, callback_token)
        question = verification_protocol.request_headers(
            self._origin, callback_url=callback_url, rate_per_second=begun.configured_rate_per_second
        )
        # Do not fetch an access token for this: the sink has not yet agreed to receive events.
        credential = {} if isinstance(settings.credential, OAuth2) else headers_of(settings.credential)
        headers = {**settings.headers, **credential, "user-agent": USER_AGENT, **question}
        request = Request(
            subscription.sink,
            headers,
            b"",
            verification_protocol.METHOD,
            ANSWER_S,
            tls_of(settings),
            owner=subscription.consumer_id,
            whole=True,
        )
        answer = await awaited_answer(functools.partial(self._transport.send, request))
        if not answer.status:
            return Unanswered(answer.error)
        # The sink's answer is shown to users, and it may repeat secrets that it was sent.
        secrets = (callback_token, *secrets_of(settings.credential, settings.secrets))
        said = [
            (name, redacted(value, secrets))
            for name, value in answer.headers.items()
            if name.startswith(verification_protocol.ANSWER_PREFIX)
        ]
        return verification_protocol.consent(said, self._origin, callback_offered=bool(callback_url))
