"""Revision: asks the registry how far it is, over one stream that stays open, and for how long it need not be asked again.

event log → ahead → barrier → [revision] → subscription

Law 1: the answer to a question was given after it was asked; after anything unexpected the stream is given up, and with it
every answer that could belong to an earlier question.
Law 2: a lease is counted from before it was asked for, so that it ends here before it does there, also while this machine is suspended.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import grpc
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.delivery.errors import RegistryAwayError
from services.runtime.clock import Clock
from services.runtime.errors import failure_from_rpc
from services.runtime.rpc.access import ServiceToken
from services.runtime.rpc.channel_and_server import service_metadata

if TYPE_CHECKING:
    from hooktide.subscription.v1 import subscription_pb2_grpc

LEASE_S = 0.5
_ANSWER_WITHIN_S = 2.0
_Result = TypeVar("_Result")
_Call = grpc.aio.StreamStreamCall[pb.AskRevisionRequest, pb.AskRevisionResponse]


class Told(NamedTuple):
    """What the registry has said."""

    revision: int
    """That of its latest committed change."""
    lease_until: float
    """Until when, by the clock that goes on in suspension, nobody hears of a later change before this is confirmed to be known here."""


class RevisionOfRegistry:
    """Asks and confirms, one thing at a time."""

    def __init__(self, stub: "subscription_pb2_grpc.SubscriptionServiceAsyncStub", service_token: ServiceToken, clock: Clock) -> None:
        self._stub = stub
        self._clock = clock
        self._metadata = service_metadata(service_token)
        self._call: _Call | None = None

    async def ask(self, reached: int, change_id: str = "") -> Told:
        """Return the registry's latest committed revision, with a lease.

        All changes up to the revision `reached` are known here; `change_id` is the id of its change, "" if that is not known.
        Raises `RegistryAwayError` if the registry does not answer in time, or has another change by that revision.
        """
        asked_at = self._clock.boottime()
        question = pb.AskRevisionRequest(reached_revision=reached, reached_change_id=change_id)
        question.lease.FromMilliseconds(int(LEASE_S * 1000))

        async def answer(call: _Call) -> Told:
            await call.write(question)
            answer = await call.read()
            if not isinstance(answer, pb.AskRevisionResponse):
                raise RegistryAwayError("UNAVAILABLE")
            return Told(answer.revision, asked_at + answer.lease.ToMilliseconds() / 1000)

        # That a stream has ended is found out by using it: the registry may be back already.
        if self._call is not None:
            try:
                return await self._over(self._call, answer)
            except RegistryAwayError:
                asked_at = self._clock.boottime()
        call = self._call = self._stub.AskRevision(metadata=self._metadata)
        return await self._over(call, answer)

    async def confirm(self, reached: int) -> None:
        """Say that all changes up to a revision are known here; where that does not get there, the registry waits until the lease ends."""
        if self._call is not None:
            message = pb.AskRevisionRequest(reached_revision=reached, confirms=True)
            with contextlib.suppress(RegistryAwayError):
                await self._over(self._call, lambda call: call.write(message))

    def close(self) -> None:
        """Give the stream up; the next question opens another."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _over(self, call: _Call, act: Callable[[_Call], Awaitable[_Result]]) -> _Result:
        """Do something over the stream, which is given up where that fails."""
        done = False
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                result = await act(call)
            done = True
        except TimeoutError:
            raise RegistryAwayError("DEADLINE_EXCEEDED") from None
        except grpc.aio.AioRpcError as error:
            raise RegistryAwayError(failure_from_rpc(error).reason.name) from error
        except (asyncio.InvalidStateError, asyncio.CancelledError):
            # What grpc raises where the stream has ended before; and, of ours, the end of who asks.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise RegistryAwayError("UNAVAILABLE") from None
        finally:
            if not done:
                self.close()
        return result
