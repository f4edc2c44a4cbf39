"""Sender: runs one attempt from its request to its answer, with an access token if the sink needs one.

lane → [sender: request_builder] → oauth2_client, transport → retry_policy

Law 1: each `send` is answered exactly once, on the event loop and never within `send`.
Law 2: if the sink refuses an attempt's access token, the attempt is sent once more with a new token, to the same sink. It stays one
attempt.
"""

import asyncio
import functools
from collections.abc import Callable

from services.delivery.model import Delivery
from services.delivery.request.access_token_state import NoToken, Token
from services.delivery.request.credentials import OAuth2
from services.delivery.request.oauth2_client import OAuth2Client
from services.delivery.request.request_builder import request_of
from services.delivery.request.request_settings import RequestSettings, Subscription
from services.delivery.transport.protocol import WITHDRAWN, Answer, Outcome, Transport
from services.runtime.clock import Clock, unix_ms
from services.runtime.fair_semaphore import ShareNow

_UNAUTHORIZED = 401
Done = Callable[[Answer], None]


class WebhookSender:
    """The dispatcher's `Sender` by HTTP requests, in the name of `origin` ("": none)."""

    def __init__(
        self,
        transport: Transport,
        active: Callable[[str], Subscription | None],
        clock: Clock,
        origin: str,
        token_calls: ShareNow,
        fresh: Callable[[], bool],
    ) -> None:
        """`active` returns a subscription by its id, None if nothing may be sent to it now.

        `token_calls` bounds the calls to authorization servers, in all and for one consumer. A request waits in the transport while
        `fresh` returns False.
        """
        self._transport = transport
        self._active = active
        self._clock = clock
        self.fresh = fresh
        """Whether requests may leave."""
        self._origin = origin
        self._tokens = OAuth2Client(transport, clock, self._token_arrived, token_calls)
        self._waiting: dict[str, Callable[[str], None]] = {}
        self._closed = False

    def may_send(self, subscription: Subscription, ready: Callable[[str], None]) -> bool:
        """Return whether an attempt may begin. If it needs a token and has none, fetch one; `ready` is called when that has ended."""
        credential = subscription.settings.credential
        if not isinstance(credential, OAuth2):
            return True
        if self._tokens.get(subscription.id, subscription.consumer_id, credential) is not None:
            return True
        self._waiting[subscription.id] = ready
        return False

    def send(self, delivery: Delivery, subscription: Subscription, now_ms: int, done: Done) -> None:
        """Begin an attempt after `may_send` returned True. If the event cannot be encoded, raises `ValueError` and never calls `done`."""
        credential = subscription.settings.credential
        if not isinstance(credential, OAuth2):
            self._transport.send(request_of(delivery, subscription, now_ms, origin=self._origin, may_begin=self.fresh), done)
            return
        match self._tokens.get(subscription.id, subscription.consumer_id, credential):
            case Token() as token:
                request = request_of(delivery, subscription, now_ms, origin=self._origin, token=token, may_begin=self.fresh)
                self._transport.send(request, functools.partial(self._answered, delivery, subscription.settings, credential, token, done))
            case NoToken(why, _):
                _soon(done, _without_token(why))
            case None:
                # The token has expired since `may_send`.
                again = functools.partial(self._again, delivery, subscription.settings, credential, done, WITHDRAWN)
                self._tokens.when_fetched(subscription.id, subscription.consumer_id, credential, again)

    def withdraw(self, subscription_id: str) -> None:
        """Withdraw a subscription's requests that have not begun; each is answered with `WITHDRAWN`."""
        self._transport.withdraw(subscription_id)

    def withdraw_all(self, consumer_id: str = "") -> None:
        """Withdraw the requests of one consumer, or of all (""), that have not begun; each is answered with `WITHDRAWN`."""
        self._transport.withdraw_all(consumer_id)

    def forget(self, subscription_id: str) -> None:
        """Forget the tokens of a subscription that no longer exists."""
        self._waiting.pop(subscription_id, None)
        self._tokens.forget(subscription_id)

    def close(self) -> None:
        """From now on, send no request again with another token."""
        self._closed = True

    def _token_arrived(self, subscription_id: str) -> None:
        ready = self._waiting.pop(subscription_id, None)
        if ready is not None:
            ready(subscription_id)

    def _answered(
        self, delivery: Delivery, settings: RequestSettings, credential: OAuth2, token: Token, done: Done, answer: Answer
    ) -> None:
        subscription_id, owner = delivery.subscription_id, delivery.consumer_id
        answer = answer._replace(sent_secrets=(token.value,))
        if (
            answer.status != _UNAUTHORIZED
            or self._unchanged(subscription_id, settings) is None
            or not self._tokens.is_replaced(subscription_id, owner, credential, token)
        ):
            done(answer)
            return
        again = functools.partial(self._again, delivery, settings, credential, done, answer)
        if self._tokens.get(subscription_id, owner, credential) is None:
            self._tokens.when_fetched(subscription_id, owner, credential, again)
        else:
            again()

    def _again(self, delivery: Delivery, settings: RequestSettings, credential: OAuth2, done: Done, answer: Answer) -> None:
        """Send the request with the fetched token; if it may no longer be sent, or the fetch goes on, give the old answer."""
        subscription = self._unchanged(delivery.subscription_id, settings)
        if subscription is None:
            done(answer)
            return
        match self._tokens.get(subscription.id, subscription.consumer_id, credential):
            case Token() as token:
                now_ms = unix_ms(self._clock)
                try:
                    request = request_of(delivery, subscription, now_ms, origin=self._origin, token=token, may_begin=self.fresh)
                except ValueError as error:  # an attempt that waited for its first token was not encoded before
                    done(Answer(Outcome.PROTOCOL, 0, f"the event could not be encoded: {error}", b"", ""))
                    return
                self._transport.send(request, lambda last: done(last._replace(sent_secrets=(token.value,)) if last.begun else answer))
            case NoToken(why, _):
                done(_without_token(why))
            case None:
                done(answer)

    def _unchanged(self, subscription_id: str, settings: RequestSettings) -> Subscription | None:
        """Return a subscription if an attempt that began with `settings` may go on with the present ones, else None."""
        subscription = self._active(subscription_id)
        if self._closed or subscription is None:
            return None
        now = subscription.settings
        return subscription if (now.sink_revision, now.credential) == (settings.sink_revision, settings.credential) else None


def _without_token(why: str) -> Answer:
    return Answer(Outcome.CREDENTIAL, 0, f"no access token could be fetched: {why}", b"", "")


def _soon(done: Done, answer: Answer) -> None:
    asyncio.get_running_loop().call_soon(done, answer)
