"""Revision client: asks the registry for its latest revision and a read lease, over one stream that stays open.

read_barrier → [revision_client] ─gRPC─▶ registry

Law 1: each answer was given after its question was asked. After anything unexpected the stream is closed, and with it
every answer that could belong to an earlier question is dropped.
Law 2: a lease is counted from before its question, so that it ends here before it ends in the registry, also while this machine is
suspended.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import grpc
from hooktide.subscription.v1 import subscription_pb2 as pb
from hooktide.subscription.v1 import subscription_pb2_grpc

from services.delivery.errors import RegistryAwayError
from services.runtime.clock import Clock
from services.runtime.errors import failure_from_rpc
from services.runtime.rpc.access import ServiceToken
from services.runtime.rpc.channel_and_server import service_metadata

LEASE_S = 0.5
_ANSWER_WITHIN_S = 2.0
_Result = TypeVar("_Result")
_Call = grpc.aio.StreamStreamCall[pb.AskRevisionRequest, pb.AskRevisionResponse]


class LeasedRevision(NamedTuple):
    """The registry's answer: its revision, with a read lease."""

    revision: int
    """The revision of the registry's latest committed change."""
    lease_until: float
    """When the lease ends, in seconds of the clock that goes on in suspension.

    Until then nobody hears of a later change before this process has confirmed that it knows the change.
    """


class RevisionClient:
    """Asks and confirms, one call at a time."""

    def __init__(self, channel: grpc.aio.Channel, service_token: ServiceToken, clock: Clock) -> None:
        self._stub = subscription_pb2_grpc.SubscriptionServiceStub(channel)
        self._clock = clock
        self._metadata = service_metadata(service_token)
        self._call: _Call | None = None

    async def ask(self, reached: int, change_id: str = "") -> LeasedRevision:
        """Return the registry's latest committed revision, with a lease.

        All changes up to the revision `reached` are known here; `change_id` is the id of the change at `reached`, "" if it is not known.
        Raises `RegistryAwayError` if the registry does not answer in time, or has another change at that revision.
        """
        asked_at = self._clock.boottime()
        question = pb.AskRevisionRequest(reached_revision=reached, reached_change_id=change_id)
        question.lease.FromMilliseconds(int(LEASE_S * 1000))

        async def answer(call: _Call) -> LeasedRevision:
            await call.write(question)
            answer = await call.read()
            if not isinstance(answer, pb.AskRevisionResponse):
                raise RegistryAwayError("UNAVAILABLE")
            return LeasedRevision(answer.revision, asked_at + answer.lease.ToMilliseconds() / 1000)

        # Only its use shows that a stream has ended. The registry may be back already, so try once more over a new stream.
        if self._call is not None:
            try:
                return await self._over(self._call, answer)
            except RegistryAwayError:
                asked_at = self._clock.boottime()
        call = self._call = self._stub.AskRevision(metadata=self._metadata)
        return await self._over(call, answer)

    async def confirm(self, reached: int) -> None:
        """Confirm that all changes up to a revision are known here. If the message is lost, the registry waits until the lease ends."""
        if self._call is not None:
            message = pb.AskRevisionRequest(reached_revision=reached, confirms=True)
            with contextlib.suppress(RegistryAwayError):
                await self._over(self._call, lambda call: call.write(message))

    def close(self) -> None:
        """Close the stream; the next question opens another."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _over(self, call: _Call, act: Callable[[_Call], Awaitable[_Result]]) -> _Result:
        """Run `act` over the stream under a deadline; close the stream if `act` fails."""
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
            # grpc raises these if the stream has ended before. A CancelledError may also be the cancellation of this task.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise RegistryAwayError("UNAVAILABLE") from None
        finally:
            if not done:
                self.close()
        return result
