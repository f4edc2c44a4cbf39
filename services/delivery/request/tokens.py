"""Tokens: the access tokens of all subscriptions with OAuth2, fetched on demand.

sender → [tokens: oauth2] → transport → authorization server

Law 1: `oauth2` alone decides what to do and when. Subscriptions of one consumer with the same credential share its tokens, and one call
at a time fetches them.
Law 2: calls to the authorization server use the same transport as webhooks, and obey the same rules.
Law 3: a consumer's authorization servers that do not answer hold at most that consumer's share of the calls. No attempt waits for a
token longer than 10 s, and each call has a time limit of 10 s.
"""

import asyncio
import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from services.delivery.request import oauth2
from services.delivery.request.credentials import OAuth2
from services.delivery.request.oauth2 import AwaitToken, FetchToken, NoToken, Token, TokenFailure, TokenState, UseToken
from services.delivery.request.redaction import redacted, secrets_of
from services.delivery.request.request_builder import USER_AGENT
from services.delivery.transport.protocol import Answer, Request, Tls, Transport
from services.runtime.clock import Clock
from services.runtime.fair_semaphore import FairSemaphore, Place, ShareNow
from services.runtime.logs import logger

_ANSWER_S = 10.0
# A waiting attempt blocks the place of another attempt, so it waits no longer than one call may take.
_WAITED_FOR_S = 10.0
# More than any consumer has credentials; each credential waits at most once.
_OWNER_WAITING_MAX = 1_000_000


@dataclass(slots=True, eq=False)
class _Standing:
    """One consumer's credential, the state of its tokens, and the callers that wait for the next token."""

    owner: str
    credential: OAuth2
    state: TokenState = field(default_factory=TokenState)
    subscriptions: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    """The subscriptions for which `arrived` is called when the next call has ended."""
    waiting: dict[Callable[[], None], asyncio.TimerHandle] = field(default_factory=dict)
    """The callbacks of attempts that wait, each with the timer that ends its wait."""
    place: Place | None = None
    """The permit of the call that is under way or waits for its turn."""


class Tokens:
    """Tokens by subscription. When a call has ended, with a token or without, `arrived` is called for each subscription that waits."""

    def __init__(self, transport: Transport, clock: Clock, arrived: Callable[[str], None], calls: ShareNow) -> None:
        """`calls` bounds the calls under way, in all and for one consumer."""
        self._transport = transport
        self._clock = clock
        self._arrived = arrived
        self._calls = FairSemaphore(calls, owner_waiting_max=_OWNER_WAITING_MAX)
        self._standing: dict[str, _Standing] = {}
        """By subscription."""
        self._shared: dict[tuple[str, OAuth2], _Standing] = {}

    def look(self, subscription_id: str, owner: str, credential: OAuth2) -> Token | NoToken | None:
        """Return the token to send, or why there is none; None while a token is being fetched: `arrived` is called when that has ended."""
        standing = self._standing_of(subscription_id, owner, credential)
        match oauth2.need(standing.state, self._clock.monotonic()):
            case UseToken(token, renew):
                if renew:
                    self._fetch(standing)
                return token
            case NoToken() as none:
                return none
            case FetchToken():
                standing.told.add(subscription_id)
                self._fetch(standing)
                return None
            case AwaitToken():
                standing.told.add(subscription_id)
                return None

    def is_replaced(self, subscription_id: str, owner: str, credential: OAuth2, token: Token) -> bool:
        """Note that the sink answered 401 to a token; return whether to try once more with another token."""
        standing = self._standing_of(subscription_id, owner, credential)
        standing.state, again = oauth2.rejected(standing.state, token, self._clock.monotonic())
        return again

    def after(self, subscription_id: str, owner: str, credential: OAuth2, then: Callable[[], None]) -> None:
        """Call `then` once: when the call under way has ended, or after 10 s."""
        standing = self._standing_of(subscription_id, owner, credential)
        standing.waiting[then] = asyncio.get_running_loop().call_later(_WAITED_FOR_S, self._tell, standing, then)

    def forget(self, subscription_id: str) -> None:
        """Forget a subscription's tokens."""
        standing = self._standing.pop(subscription_id, None)
        if standing is None:
            return
        standing.subscriptions.discard(subscription_id)
        standing.told.discard(subscription_id)
        if not standing.subscriptions:
            self._shared.pop((standing.owner, standing.credential), None)
            if standing.place is not None and not standing.place.holds_permit:
                standing.place.leave()
                for then in standing.waiting:
                    asyncio.get_running_loop().call_soon(self._tell, standing, then)

    def _standing_of(self, subscription_id: str, owner: str, credential: OAuth2) -> _Standing:
        standing = self._standing.get(subscription_id)
        if standing is None or standing.credential != credential:
            self.forget(subscription_id)
            standing = self._shared.get((owner, credential))
            if standing is None:
                standing = self._shared[owner, credential] = _Standing(owner, credential)
            standing.subscriptions.add(subscription_id)
            self._standing[subscription_id] = standing
        return standing

    def _fetch(self, standing: _Standing) -> None:
        standing.state = oauth2.began(standing.state)
        standing.place = self._calls.enter(standing.owner, functools.partial(self._call, standing))
        if standing.place is None:
            asyncio.get_running_loop().call_soon(self._ended, standing, TokenFailure("too many calls to authorization servers wait"))

    def _call(self, standing: _Standing, place: Place) -> None:
        credential = standing.credential
        call = oauth2.token_request(credential.token_url, credential.client_id, credential.client_secret, credential.scope)
        headers = call.headers | {"user-agent": USER_AGENT}
        tls = Tls(ca_pem=credential.ca_certificates.encode()) if credential.ca_certificates else None
        request = Request(call.url, headers, call.body, oauth2.METHOD, _ANSWER_S, tls, owner=standing.owner, whole=True)
        self._transport.send(request, functools.partial(self._answered, standing, place, self._clock.monotonic()))

    def _answered(self, standing: _Standing, place: Place, asked_at: float, answer: Answer) -> None:
        place.leave()
        self._ended(standing, oauth2.token_of(answer.status, answer.body, asked_at) if answer.status else TokenFailure(_unreached(answer)))

    def _ended(self, standing: _Standing, found: Token | TokenFailure) -> None:
        match found:
            case Token():
                standing.state = oauth2.fetched(standing.state, found)
            case TokenFailure(said):
                why = redacted(said, secrets_of(standing.credential, ()))
                standing.state = oauth2.failed(standing.state, why, self._clock.monotonic(), random.random())  # noqa: S311 - jitter
                shared_by = len(standing.subscriptions)
                logger().warning("token.failed", subscription=min(standing.subscriptions, default=""), shared_by=shared_by, why=why)
        told, standing.told = standing.told, set()
        for then in list(standing.waiting):
            self._tell(standing, then)
        for subscription_id in sorted(told):
            self._arrived(subscription_id)

    def _tell(self, standing: _Standing, then: Callable[[], None]) -> None:
        timer = standing.waiting.pop(then, None)
        if timer is not None:
            timer.cancel()
            then()


def _unreached(answer: Answer) -> str:
    return f"the authorization server gave no answer ({answer.outcome.name.lower()}: {answer.error})"
