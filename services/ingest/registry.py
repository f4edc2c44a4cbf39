"""Registry: what ingest needs to know of the subscription service, each answer kept for at most two seconds.

Emitter keys decide who may publish, event types whether an audience is required. An answer that is
too old is asked for again; where the registry is away, events are refused for the time being rather
than taken on a key that may have been revoked.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import grpc
from hooktide.subscription.v1 import access_pb2, access_pb2_grpc, catalogue_pb2, catalogue_pb2_grpc

from services.runtime.clock import Clock
from services.runtime.errors import Failure, Reason, failure_from_rpc
from services.runtime.rpc import service_metadata

FRESH_S = 2.0
_KEPT_MAX = 10_000

RETRIED = (
    "hooktide.subscription.v1.AccessService/Authenticate",
    "hooktide.subscription.v1.CatalogueService/GetEventType",
)

_Answer = TypeVar("_Answer")


class Registry:
    """Asks the subscription service about keys and event types."""

    def __init__(self, channel: grpc.aio.Channel, service_token: str, clock: Clock) -> None:
        self._metadata = service_metadata(service_token)
        self._access = access_pb2_grpc.AccessServiceStub(channel)
        self._catalogue = catalogue_pb2_grpc.CatalogueServiceStub(channel)
        self._keys = _Fresh(self._ask_key, clock)
        self._types = _Fresh(self._ask_type, clock)

    async def authorize(self, key: str) -> None:
        """Return where the key may publish; raise `Failure` KEY_INVALID, ROLE_FORBIDDEN or UNAVAILABLE where not."""
        failure = await self._keys.get(key)
        if failure is not None:
            raise Failure(failure.reason, failure.message)

    async def audience_required(self, event_type: str) -> bool:
        """Say whether events of this type must name an audience; a type that is not in the catalogue need not."""
        return await self._types.get(event_type)

    def known_types(self) -> dict[str, bool]:
        """Return the types whose answer is still fresh, with whether they require an audience."""
        return self._types.fresh()

    async def _ask_key(self, key: str) -> Failure | None:
        try:
            answer = await self._access.Authenticate(access_pb2.AuthenticateRequest(key=key), metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            failure = failure_from_rpc(error)
            if failure.reason is Reason.KEY_INVALID:
                return failure
            raise _away() from error
        if answer.key.role != access_pb2.ROLE_EMITTER:
            return Failure(Reason.ROLE_FORBIDDEN, "Publishing needs a key of the role emitter; this key has another role.")
        return None

    async def _ask_type(self, name: str) -> bool:
        try:
            answer = await self._catalogue.GetEventType(catalogue_pb2.GetEventTypeRequest(name=name), metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            failure = failure_from_rpc(error)
            if failure.reason in {Reason.EVENT_TYPE_NOT_FOUND, Reason.INVALID_ARGUMENT}:
                return False
            raise _away() from error
        return answer.event_type.audience_required


def _away() -> Failure:
    """Return what an emitter is told where the registry gives no answer, whatever the cause: it is none of the emitter's."""
    return Failure(Reason.UNAVAILABLE, "The registry of keys and event types cannot be asked; send the events again.", retry_after_s=1.0)


class _Fresh(Generic[_Answer]):
    """Answers by question, none older than `FRESH_S`; one question under way serves all who ask it."""

    def __init__(self, ask: Callable[[str], Awaitable[_Answer]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._answers: dict[str, tuple[float, _Answer]] = {}
        self._asking: dict[str, asyncio.Future[_Answer]] = {}

    def fresh(self) -> dict[str, _Answer]:
        oldest = self._clock.monotonic() - FRESH_S
        return {question: answer for question, (asked_at, answer) in self._answers.items() if asked_at > oldest}

    async def get(self, question: str) -> _Answer:
        kept = self._answers.get(question)
        if kept is not None and self._clock.monotonic() - kept[0] < FRESH_S:
            return kept[1]
        asking = self._asking.get(question)
        if asking is None:
            # In a context of its own: the deadline of whoever asks first is not that of the others who wait for the answer.
            loop = asyncio.get_running_loop()
            asking = self._asking[question] = loop.create_task(self._ask_and_keep(question), context=contextvars.Context())
            asking.add_done_callback(lambda done: self._forget(question, done))
        return await asyncio.shield(asking)

    async def _ask_and_keep(self, question: str) -> _Answer:
        asked_at = self._clock.monotonic()
        answer = await self._ask(question)
        self._answers.pop(question, None)
        while len(self._answers) >= _KEPT_MAX:
            self._answers.pop(next(iter(self._answers)))
        self._answers[question] = (asked_at, answer)
        return answer

    def _forget(self, question: str, done: asyncio.Future[_Answer]) -> None:
        self._asking.pop(question, None)
        if not done.cancelled():
            done.exception()  # whoever asked has it; nobody else needs to hear of it
