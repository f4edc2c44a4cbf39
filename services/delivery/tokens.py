"""Tokens: the access tokens of all subscriptions with OAuth2, fetched as they are needed.

push → [tokens: oauth2] → transport → authorization server

Law 1: what is done when is decided by `oauth2` alone; one call at a time for each subscription.
Law 2: the server is called by the transport of webhooks, by the rules of sinks.
"""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from services.delivery import oauth2
from services.delivery.attempt import USER_AGENT
from services.delivery.credentials import OAuth2
from services.delivery.oauth2 import AwaitToken, FetchToken, NoToken, Token, TokenFailure, TokenState, UseToken
from services.delivery.redaction import redacted, secrets_of
from services.delivery.transport.protocol import Answer, Request, Tls, Transport
from services.runtime.clock import Clock
from services.runtime.logs import logger

_ANSWER_S = 10.0


@dataclass(slots=True, eq=False)
class _Standing:
    """One subscription's credential, its tokens, and who waits for the next one."""

    credential: OAuth2
    state: TokenState = field(default_factory=TokenState)
    waiting: list[Callable[[], None]] = field(default_factory=list)


class Tokens:
    """Tokens by subscription; `arrived` is told of a subscription whose call has ended, with a token or without."""

    def __init__(self, transport: Transport, clock: Clock, arrived: Callable[[str], None]) -> None:
        self._transport = transport
        self._clock = clock
        self._arrived = arrived
        self._standing: dict[str, _Standing] = {}

    def look(self, subscription_id: str, credential: OAuth2) -> Token | NoToken | None:
        """Return the token to send, or why there is none; None while one is on its way: `arrived` is told then."""
        standing = self._standing_of(subscription_id, credential)
        match oauth2.need(standing.state, self._clock.monotonic()):
            case UseToken(token, renew):
                if renew:
                    self._fetch(subscription_id, standing)
                return token
            case NoToken() as none:
                return none
            case FetchToken():
                self._fetch(subscription_id, standing)
                return None
            case AwaitToken():
                return None

    def is_replaced(self, subscription_id: str, credential: OAuth2, token: Token) -> bool:
        """Note that the sink has answered 401 to a token; returns whether another one is worth a second try."""
        standing = self._standing_of(subscription_id, credential)
        standing.state, again = oauth2.rejected(standing.state, token, self._clock.monotonic())
        return again

    def after(self, subscription_id: str, credential: OAuth2, then: Callable[[], None]) -> None:
        """Call `then` when the call under way has ended."""
        self._standing_of(subscription_id, credential).waiting.append(then)

    def forget(self, subscription_id: str) -> None:
        """Let go of a subscription's tokens."""
        self._standing.pop(subscription_id, None)

    def _standing_of(self, subscription_id: str, credential: OAuth2) -> _Standing:
        standing = self._standing.get(subscription_id)
        if standing is None or standing.credential != credential:
            standing = self._standing[subscription_id] = _Standing(credential)
        return standing

    def _fetch(self, subscription_id: str, standing: _Standing) -> None:
        credential, asked_at = standing.credential, self._clock.monotonic()
        call = oauth2.token_request(credential.token_url, credential.client_id, credential.client_secret, credential.scope)
        headers = call.headers | {"user-agent": USER_AGENT}
        standing.state = oauth2.began(standing.state)
        tls = Tls(ca_pem=credential.ca_certificates.encode()) if credential.ca_certificates else None
        request = Request(call.url, headers, call.body, oauth2.METHOD, _ANSWER_S, tls, whole=True)
        self._transport.send(request, functools.partial(self._answered, subscription_id, standing, asked_at))

    def _answered(self, subscription_id: str, standing: _Standing, asked_at: float, answer: Answer) -> None:
        found = oauth2.token_of(answer.status, answer.body, asked_at) if answer.status else TokenFailure(_unreached(answer))
        match found:
            case Token():
                standing.state = oauth2.fetched(standing.state, found)
            case TokenFailure(said):
                why = redacted(said, secrets_of(standing.credential, ()))
                standing.state = oauth2.failed(standing.state, why, self._clock.monotonic(), random.random())  # noqa: S311 - jitter
                logger().warning("token.failed", subscription=subscription_id, why=why)
        waiting, standing.waiting = standing.waiting, []
        for then in waiting:
            then()
        self._arrived(subscription_id)


def _unreached(answer: Answer) -> str:
    return f"the authorization server gave no answer ({answer.outcome.name.lower()}: {answer.error})"
