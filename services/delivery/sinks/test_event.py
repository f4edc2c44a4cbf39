"""Test event: sends a subscription one test event, built and signed like any event, and returns the attempt.

gateway ─gRPC─▶ server → [test_event: sender] → transport → sink

Law 1: a test event is in no log, as its id says. It leaves no delivery in the ledger, is not retried, and affects neither the circuit
breaker nor the sink's health.
Law 2: a subscription has at most one test event under way, and it obeys the rules of every attempt.
Law 3: sinks that do not answer hold at most their consumer's share of the test events, so that other consumers can test meanwhile.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import orjson

from services.delivery.model import Attempt, Delivery, Event, delivery_id
from services.delivery.request.attempt_record import attempt_of
from services.delivery.request.request_settings import Subscription
from services.delivery.request.sender import WebhookSender
from services.delivery.sinks.wire import stored_event
from services.delivery.transport.protocol import Transport, awaited_answer
from services.eventlog.record import NO_PARTITION, Record
from services.runtime.clock import Clock, unix_ms
from services.runtime.consumer_scope import Scope
from services.runtime.errors import Failure, Reason
from services.runtime.fair_semaphore import FairSemaphore, PermitRefusedError, Share, ShareNow
from services.runtime.ids import id_bytes, id_text, new_id

TYPE = "hooktide.test"
SOURCE = "/hooktide"
_TURN_WITHIN_S = 5.0
_ONE_CALL = Share(permits=1, owner_permits=1)
_CURRENT_WITHIN_S = 5.0
_RETRY_S = 1.0


class SentTestEvent(NamedTuple):
    """The test event's id (its `webhook-id`), and the attempt."""

    event_id: str
    attempt: Attempt


class SinkTester:
    """Sends test events, in the name of `origin` ("": none)."""

    def __init__(
        self,
        transport: Transport,
        subscription: Callable[[str], Subscription | None],
        active: Callable[[str], Subscription | None],
        current: Callable[[], Awaitable[None]],
        clock: Clock,
        origin: str,
        share: ShareNow,
        fresh: Callable[[], bool],
    ) -> None:
        """`subscription` returns a subscription by its id, and `active` does so if events may be sent to it now.

        Both are up to date after `current` has returned and while `fresh` returns True.

        `share` bounds the test events under way, in all and for one consumer.
        """
        self._transport = transport
        self._subscription, self._active = subscription, active
        self._current = current
        self._clock = clock
        self._origin = origin
        self._permits = FairSemaphore(share, owner_waiting_max=0)
        self._fresh = fresh
        self._under_way: set[str] = set()

    async def send(self, scope: Scope, subscription_id: str) -> SentTestEvent:
        """Send a test event to the sink of a subscription in the caller's scope.

        Raises SUBSCRIPTION_NOT_FOUND; STATE_CONFLICT if the subscription is not active; OVERLOADED if it has a test event under way
        or its consumer has too many; ETAG_MISMATCH if the request is withdrawn before it begins, because the subscription changes or
        its sink fails; and UNAVAILABLE while the registry is unreachable.
        """
        subscription = await self._find(scope, subscription_id)
        if subscription_id in self._under_way:
            raise Failure(
                Reason.OVERLOADED,
                "A test event for this subscription is under way already; try again after it ends.",
                retry_after_s=_RETRY_S,
            )
        self._under_way.add(subscription_id)
        try:
            async with self._permits.permit(subscription.consumer_id, _TURN_WITHIN_S):
                return await self._send(subscription)
        except PermitRefusedError:
            message = "Too many of your test events are under way; try again after some of them end."
            raise Failure(Reason.OVERLOADED, message, retry_after_s=_RETRY_S) from None
        finally:
            self._under_way.remove(subscription_id)

    async def _find(self, scope: Scope, subscription_id: str) -> Subscription:
        try:
            async with asyncio.timeout(_CURRENT_WITHIN_S):
                await self._current()
        except TimeoutError:
            message = "The subscription service is unavailable; try again later."
            raise Failure(Reason.UNAVAILABLE, message, retry_after_s=_RETRY_S) from None
        subscription = self._subscription(subscription_id)
        if subscription is None or not scope.includes(subscription.consumer_id):
            raise Failure(Reason.SUBSCRIPTION_NOT_FOUND, "There is no such subscription.")
        if self._active(subscription_id) is None:
            message = (
                "The subscription is paused or disabled, or its sink has not consented yet, so no event is sent. `state_reason` says why."
            )
            raise Failure(Reason.STATE_CONFLICT, message)
        return subscription

    async def _send(self, subscription: Subscription) -> SentTestEvent:
        now_ms, began = unix_ms(self._clock), self._clock.monotonic()
        event_id = _event_id()
        # Use a new sender: it fetches a new access token, which tests the credential too, and waits for no other call.
        sender = WebhookSender(self._transport, self._active, self._clock, self._origin, _ONE_CALL, self._fresh)
        try:
            answer = await awaited_answer(functools.partial(sender.send, _delivery(event_id, subscription, now_ms), subscription, now_ms))
        finally:
            sender.close()
        if not answer.begun:
            raise Failure(Reason.ETAG_MISMATCH, "The subscription changed or its sink failed before the test event was sent; try again.")
        took_ms = int((self._clock.monotonic() - began) * 1000)
        return SentTestEvent(event_id, attempt_of(answer, subscription.settings, now_ms, took_ms))


def _event_id() -> str:
    """Return the id of an event that is in no log."""
    raw = int.from_bytes(id_bytes(new_id("evt")), "big")
    return id_text("evt", (raw | NO_PARTITION).to_bytes(16, "big"))


def _delivery(event_id: str, subscription: Subscription, now_ms: int) -> Delivery:
    data = orjson.dumps({"message": "This is a test event. Your sink has received it.", "subscription_id": subscription.id}).decode()
    event = stored_event(event_id, SOURCE, TYPE, data, now_ms)
    record = Record(0, NO_PARTITION, 0, event_id, TYPE, SOURCE, subscription.consumer_id, now_ms, event)
    return Delivery(
        id=delivery_id(event_id, subscription.id),
        event_id=event_id,
        shard=record.shard,
        partition=record.partition,
        position=record.position,
        event_type=TYPE,
        accepted_ms=now_ms,
        subscription_id=subscription.id,
        consumer_id=subscription.consumer_id,
        revision=subscription.revision,
        event=Event(record),
        body_mode=subscription.settings.content_mode,
    )
