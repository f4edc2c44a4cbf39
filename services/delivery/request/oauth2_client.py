"""OAuth2 client: the access tokens of all subscriptions with OAuth2, fetched on demand.

sender → [oauth2_client: access_token_state] → transport → authorization server

Law 1: `access_token_state` alone decides what to do and when. Subscriptions of one consumer with the same credential share its tokens,
and one call at a time fetches them.
Law 2: calls to the authorization server use the same transport as webhooks, and obey the same rules.
Law 3: a consumer's authorization servers that do not answer hold at most that consumer's share of the calls. No attempt waits for a
token longer than 10 s, and each call has a time limit of 10 s.
"""

import asyncio
import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from services.delivery.request import access_token_state
from services.delivery.request.access_token_state import AwaitToken, FetchToken, NoToken, Token, TokenFailure, TokenState, UseToken
from services.delivery.request.credentials import OAuth2
from services.delivery.request.redaction import redacted, secrets_of
from services.delivery.request.request_builder import USER_AGENT
from services.delivery.transport.protocol import Answer, Request, Tls, Transport
from services.runtime.clock import Clock
from services.runtime.fair_semaphore import FairSemaphore, PermitRequest, ShareNow
from services.runtime.logs import logger

_ANSWER_S = 10.0
# A waiting attempt blocks the place of another attempt, so it waits no longer than one call may take.
_WAITED_FOR_S = 10.0
# More than any consumer has credentials; each credential waits at most once.
_OWNER_WAITING_MAX = 1_000_000


@dataclass(slots=True, eq=False)
class _SharedCredential:
    """One consumer's credential, the state of its tokens, and the callers that wait for the next token."""

    owner: str
    credential: OAuth2
    state: TokenState = field(default_factory=TokenState)
    subscriptions: set[str] = field(default_factory=set)
    subscriptions_waiting: set[str] = field(default_factory=set)
    """The subscriptions for which `arrived` is called when the next call has ended."""
    attempts_waiting: dict[Callable[[], None], asyncio.TimerHandle] = field(default_factory=dict)
    """The callbacks of attempts that wait, each with the timer that ends its wait."""
    permit_request: PermitRequest | None = None
    """The permit of the call that is under way or waits for its turn."""


class OAuth2Client:
    """Tokens by subscription. When a call has ended, with a token or without, `arrived` is called for each subscription that waits."""

    def __init__(self, transport: Transport, clock: Clock, arrived: Callable[[str], None], calls: ShareNow) -> None:
        """`calls` bounds the calls under way, in all and for one consumer."""
        self._transport = transport
        self._clock = clock
        self._arrived = arrived
        self._calls = FairSemaphore(calls, owner_waiting_max=_OWNER_WAITING_MAX)
        self._by_subscription: dict[str, _SharedCredential] = {}
        """By the id of the subscription."""
        self._by_credential: dict[tuple[str, OAuth2], _SharedCredential] = {}

    def get(self, subscription_id: str, owner: str, credential: OAuth2) -> Token | NoToken | None:
        """Return the token to send, or the reason why no token can be had.

        Return None while a token is being fetched; `arrived` is called when that has ended.
        """
        shared = self._shared_by(subscription_id, owner, credential)
        match access_token_state.need(shared.state, self._clock.monotonic()):
            case UseToken(token, renew):
                if renew:
                    self._fetch(shared)
                return token
            case NoToken() as none:
                return none
            case FetchToken():
                shared.subscriptions_waiting.add(subscription_id)
                self._fetch(shared)
                return None
            case AwaitToken():
                shared.subscriptions_waiting.add(subscription_id)
                return None

    def is_replaced(self, subscription_id: str, owner: str, credential: OAuth2, token: Token) -> bool:
        """Note that the sink answered 401 to a token; return whether to try once more with another token."""
        shared = self._shared_by(subscription_id, owner, credential)
        shared.state, again = access_token_state.rejected(shared.state, token, self._clock.monotonic())
        return again

    def when_fetched(self, subscription_id: str, owner: str, credential: OAuth2, then: Callable[[], None]) -> None:
        """Call `then` once: when the call under way has ended, or after 10 s."""
        shared = self._shared_by(subscription_id, owner, credential)
        shared.attempts_waiting[then] = asyncio.get_running_loop().call_later(_WAITED_FOR_S, self._call_back, shared, then)

    def forget(self, subscription_id: str) -> None:
        """Forget a subscription's tokens."""
        shared = self._by_subscription.pop(subscription_id, None)
        if shared is None:
            return
        shared.subscriptions.discard(subscription_id)
        shared.subscriptions_waiting.discard(subscription_id)
        if not shared.subscriptions:
            self._by_credential.pop((shared.owner, shared.credential), None)
            if shared.permit_request is not None and not shared.permit_request.holds_permit:
                shared.permit_request.leave()
                for then in shared.attempts_waiting:
                    asyncio.get_running_loop().call_soon(self._call_back, shared, then)

    def _shared_by(self, subscription_id: str, owner: str, credential: OAuth2) -> _SharedCredential:
        shared = self._by_subscription.get(subscription_id)
        if shared is None or shared.credential != credential:
            self.forget(subscription_id)
            shared = self._by_credential.get((owner, credential))
            if shared is None:
                shared = self._by_credential[owner, credential] = _SharedCredential(owner, credential)
            shared.subscriptions.add(subscription_id)
            self._by_subscription[subscription_id] = shared
        return shared

    def _fetch(self, shared: _SharedCredential) -> None:
        shared.state = access_token_state.began(shared.state)
        shared.permit_request = self._calls.enter(shared.owner, functools.partial(self._call, shared))
        if shared.permit_request is None:
            asyncio.get_running_loop().call_soon(self._ended, shared, TokenFailure("too many token calls wait"))

    def _call(self, shared: _SharedCredential, permit_request: PermitRequest) -> None:
        credential = shared.credential
        call = access_token_state.token_request(credential.token_url, credential.client_id, credential.client_secret, credential.scope)
        headers = call.headers | {"user-agent": USER_AGENT}
        tls = Tls(ca_pem=credential.ca_certificates.encode()) if credential.ca_certificates else None
        request = Request(call.url, headers, call.body, access_token_state.METHOD, _ANSWER_S, tls, owner=shared.owner, whole=True)
        self._transport.send(request, functools.partial(self._answered, shared, permit_request, self._clock.monotonic()))

    def _answered(self, shared: _SharedCredential, permit_request: PermitRequest, asked_at: float, answer: Answer) -> None:
        permit_request.leave()
        found = access_token_state.token_of(answer.status, answer.body, asked_at) if answer.status else TokenFailure(_unreached(answer))
        self._ended(shared, found)

    def _ended(self, shared: _SharedCredential, found: Token | TokenFailure) -> None:
        match found:
            case Token():
                shared.state = access_token_state.fetched(shared.state, found)
            case TokenFailure(said):
                why = redacted(said, secrets_of(shared.credential, ()))
                shared.state = access_token_state.failed(shared.state, why, self._clock.monotonic(), random.random())  # noqa: S311 - jitter
                shared_by = len(shared.subscriptions)
                logger().warning("access_token.failed", subscription=min(shared.subscriptions, default=""), shared_by=shared_by, why=why)
        subscriptions_waiting, shared.subscriptions_waiting = shared.subscriptions_waiting, set()
        for then in list(shared.attempts_waiting):
            self._call_back(shared, then)
        for subscription_id in sorted(subscriptions_waiting):
            self._arrived(subscription_id)

    def _call_back(self, shared: _SharedCredential, then: Callable[[], None]) -> None:
        timer = shared.attempts_waiting.pop(then, None)
        if timer is not None:
            timer.cancel()
            then()


def _unreached(answer: Answer) -> str:
    return f"the call to the authorization server failed ({answer.outcome.name.lower()}: {answer.error})"
