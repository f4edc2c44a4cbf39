import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from hooktide.subscription.v1 import subscription_pb2 as pb

from services.delivery.errors import RegistryAwayError
from services.delivery.subscriptions.revision_client import RevisionClient
from services.runtime.clock import SystemClock
from tests.support.waiting import PATIENCE_S, until


class Registry:
    """A registry that answers with its revision while `open` is set; it counts streams and questions."""

    def __init__(self) -> None:
        self.revision = 1
        self.streams = 0
        self.questions = 0
        self.confirmed: list[int] = []
        self.lease: Duration | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def ask_revision(
        self, request_iterator: AsyncIterator[pb.AskRevisionRequest], _context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.AskRevisionResponse]:
        """Answer each question with the revision."""
        self.streams += 1
        async for question in request_iterator:
            if question.confirms:
                self.confirmed.append(question.reached_revision)
                continue
            self.questions += 1
            revision = self.revision
            await self.open.wait()
            yield pb.AskRevisionResponse(revision=revision, lease=self.lease)


@contextlib.asynccontextmanager
async def serving(registry: Registry, port: int = 0) -> AsyncIterator[int]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler = grpc.stream_stream_rpc_method_handler(
        cast("Any", registry.ask_revision), pb.AskRevisionRequest.FromString, pb.AskRevisionResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("hooktide.subscription.v1.SubscriptionService", {"AskRevision": handler}),)
    )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def asking(port: int) -> AsyncIterator[RevisionClient]:
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        revision = RevisionClient(channel, "token", SystemClock())
        try:
            yield revision
        finally:
            revision.close()


async def test_one_stream_answers_many_questions() -> None:
    registry = Registry()
    async with serving(registry) as port, asking(port) as revision:
        for number in range(1, 50):
            registry.revision = number
            assert (await revision.ask(number)).revision == number
    assert (registry.streams, registry.questions) == (1, 49)


async def test_a_registry_that_was_away_is_asked_anew() -> None:
    registry = Registry()
    async with contextlib.AsyncExitStack() as first:
        port = await first.enter_async_context(serving(registry))
        async with asking(port) as revision:
            assert (await revision.ask(1)).revision == 1
            await first.aclose()
            with pytest.raises(RegistryAwayError, match="UNAVAILABLE"):
                await revision.ask(1)
            registry.revision = 7
            async with serving(registry, port), asyncio.timeout(PATIENCE_S):
                answer = 0
                while not answer:
                    with contextlib.suppress(RegistryAwayError):
                        answer = (await revision.ask(1)).revision
                    await asyncio.sleep(0.01)
                assert answer == 7


async def test_no_answer_in_time_is_an_answer_too() -> None:
    registry = Registry()
    registry.open.clear()
    async with serving(registry) as port, asking(port) as revision:
        with pytest.raises(RegistryAwayError, match="DEADLINE_EXCEEDED"):
            await revision.ask(1)
        registry.open.set()
        assert (await revision.ask(1)).revision == 1


async def test_an_answer_that_nobody_waits_for_is_not_the_next_ones() -> None:
    """The first caller was cancelled; the next question gets an answer that is current for it."""
    registry = Registry()
    async with serving(registry) as port, asking(port) as revision:
        registry.open.clear()
        asked = asyncio.ensure_future(revision.ask(1))
        await until(lambda: registry.questions == 1, PATIENCE_S, "the question")
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        registry.revision = 2
        registry.open.set()
        assert (await revision.ask(1)).revision == 2


async def test_a_lease_is_counted_from_the_question() -> None:
    registry, clock = Registry(), SystemClock()
    async with serving(registry) as port, asking(port) as revision:
        asked_at = clock.boottime()
        assert (await revision.ask(1)).lease_until <= clock.boottime(), "there is none"
        registry.lease = Duration(seconds=60)
        registry.open.clear()
        asking_at = clock.boottime()
        asked = asyncio.ensure_future(revision.ask(1))
        await until(lambda: registry.questions == 2, PATIENCE_S, "the question")
        heard_at = clock.boottime()
        registry.open.set()
        assert asked_at < asking_at + 60 <= (await asked).lease_until <= heard_at + 60


async def test_a_confirmation_has_no_answer_and_needs_no_stream() -> None:
    registry = Registry()
    async with serving(registry) as port, asking(port) as revision:
        await revision.confirm(1)
        assert registry.streams == 0
        assert (await revision.ask(2)).revision == 1
        await revision.confirm(3)
        registry.revision = 3
        assert (await revision.ask(3)).revision == 3
        assert registry.confirmed == [3]
    await revision.confirm(4)
    assert (registry.streams, registry.confirmed) == (1, [3])
