"""Revision: asks the registry how far it is, over one stream that stays open.

event log → ahead → barrier → [revision] → subscription

Law: the answer to a question was given after it was asked; after anything unexpected the stream is given up, and with it
every answer that could belong to an earlier question.
"""

import asyncio
from typing import TYPE_CHECKING

import grpc
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.delivery.errors import RegistryAwayError
from services.runtime.errors import failure_from_rpc
from services.runtime.rpc import service_metadata

if TYPE_CHECKING:
    from hooktide.subscription.v1 import subscription_pb2_grpc

_ANSWER_WITHIN_S = 2.0
_Call = grpc.aio.StreamStreamCall[pb.AskRevisionRequest, pb.AskRevisionResponse]


class RevisionOfRegistry:
    """Asks, one question at a time."""

    def __init__(self, stub: "subscription_pb2_grpc.SubscriptionServiceAsyncStub", service_token: str) -> None:
        self._stub = stub
        self._metadata = service_metadata(service_token)
        self._call: _Call | None = None

    async def ask(self) -> int:
        """Return the registry's latest committed revision; raises `RegistryAwayError` where it does not answer in time."""
        # That a stream has ended is found out by using it: the registry may be back already.
        if self._call is not None:
            try:
                return await self._answer(self._call)
            except RegistryAwayError:
                pass
        call = self._call = self._stub.AskRevision(metadata=self._metadata)
        return await self._answer(call)

    def close(self) -> None:
        """Give the stream up; the next question opens another."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _answer(self, call: _Call) -> int:
        answered = False
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                await call.write(pb.AskRevisionRequest())
                answer = await call.read()
            answered = isinstance(answer, pb.AskRevisionResponse)
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
            if not answered:
                self.close()
        if not isinstance(answer, pb.AskRevisionResponse):
            raise RegistryAwayError("UNAVAILABLE")
        return answer.revision
