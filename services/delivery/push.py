"""Push: one attempt from its request to its answer, with an access token where the sink wants one.

lane → [push: attempt] → tokens, transport → schedule

Law 1: each `push` is answered exactly once, on the event loop and never within `push`.
Law 2: an attempt whose token the sink refuses is sent once more with another, and stays one attempt.
"""

import asyncio
import functools
from collections.abc import Callable

from services.delivery.attempt import request_of
from services.delivery.credentials import OAuth2
from services.delivery.model import Delivery, Health, Outcome, Subscription
from services.delivery.oauth2 import NoToken, Token
from services.delivery.tokens import Tokens
from services.delivery.transport import Answer, Transport
from services.runtime.clock import Clock, unix_ms

_UNAUTHORIZED = 401
Done = Callable[[Answer], None]


class Pusher:
    """Sends the attempts of a worker, in the name of `origin` ("": none); `ready` is told where a token has come or failed to."""

    def __init__(
        self,
        transport: Transport,
        subscription: Callable[[str], Subscription | None],
        clock: Clock,
        origin: str,
        ready: Callable[[str], None],
    ) -> None:
        self._transport = transport
        self._subscription = subscription
        self._clock = clock
        self._origin = origin
        self._tokens = Tokens(transport, clock, ready)
        self._closed = False

    def may_push(self, subscription: Subscription) -> bool:
        """Say whether an attempt may begin: not while the token for it is on its way."""
        credential = subscription.terms.credential
        return not isinstance(credential, OAuth2) or self._tokens.look(subscription.id, credential) is not None

    def push(self, delivery: Delivery, subscription: Subscription, done: Done) -> None:
        """Begin an attempt that `may_push`; raises `ValueError`, and calls nobody, where the event cannot be encoded."""
        credential = subscription.terms.credential
        if not isinstance(credential, OAuth2):
            self._transport.send(request_of(delivery, subscription, unix_ms(self._clock), origin=self._origin), done)
            return
        match self._tokens.look(subscription.id, credential):
            case Token() as token:
                request = request_of(delivery, subscription, unix_ms(self._clock), origin=self._origin, token=token)
                self._transport.send(request, functools.partial(self._answered, delivery, credential, token, done))
            case NoToken(why, _):
                _soon(done, _without_token(why))
            case None:
                # It has ended since `may_push`.
                without = _without_token("it has not arrived yet")
                self._tokens.after(subscription.id, credential, functools.partial(self._again, delivery, credential, done, without))

    def forget(self, subscription_id: str) -> None:
        """Let go of what is known for a subscription that is no more."""
        self._tokens.forget(subscription_id)

    def close(self) -> None:
        """Send nothing a second time any more."""
        self._closed = True

    def _answered(self, delivery: Delivery, credential: OAuth2, token: Token, done: Done, answer: Answer) -> None:
        subscription_id = delivery.subscription_id
        subscription = self._subscription(subscription_id)
        same = subscription is not None and subscription.terms.credential == credential
        if answer.status != _UNAUTHORIZED or not same or self._closed or not self._tokens.is_replaced(subscription_id, credential, token):
            done(answer._replace(sent_secrets=(token.value,)))
            return
        again = functools.partial(self._again, delivery, credential, done, answer._replace(sent_secrets=(token.value,)))
        if self._tokens.look(subscription_id, credential) is None:
            self._tokens.after(subscription_id, credential, again)
        else:
            again()

    def _again(self, delivery: Delivery, credential: OAuth2, done: Done, answer: Answer) -> None:
        """Send what a token was fetched for; where that is no longer wanted, the answer that there is stands."""
        subscription = self._subscription(delivery.subscription_id)
        if self._closed or subscription is None or subscription.health is not Health.ACTIVE or subscription.terms.credential != credential:
            done(answer)
            return
        match self._tokens.look(subscription.id, credential):
            case Token() as token:
                request = request_of(delivery, subscription, unix_ms(self._clock), origin=self._origin, token=token)
                self._transport.send(request, lambda last: done(last._replace(sent_secrets=(token.value,))))
            case NoToken(why, _):
                done(_without_token(why))
            case None:
                done(answer)


def _without_token(why: str) -> Answer:
    return Answer(Outcome.CREDENTIAL, 0, f"there is no access token to send: {why}", b"", "")


def _soon(done: Done, answer: Answer) -> None:
    asyncio.get_running_loop().call_soon(done, answer)
