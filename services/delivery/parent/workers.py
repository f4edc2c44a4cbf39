"""Workers: all workers of one parent: their processes, their readiness, and the calls to them.

[workers: worker_process, admin_client] → front_server, app

Law: a question about readiness calls no worker. The workers are asked at intervals, and their latest answers count.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from hooktide.delivery.v1 import delivery_pb2_grpc

from services.delivery.ledger.ledger_map import slots_of
from services.delivery.parent.admin_client import AdminClient
from services.delivery.parent.worker_process import WorkerProcess
from services.delivery.worker_seats import worker_socket
from services.runtime.errors import STATUS_DETAILS_KEY, failure_from_rpc
from services.runtime.rpc.access import ServiceToken
from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from services.runtime.service_process import WorkerSeat

if TYPE_CHECKING:
    # The asyncio form of the generated stubs exists for type checkers only.
    from hooktide.delivery.v1.delivery_pb2_grpc import DeliveryServiceAsyncStub

READY = "ready"
_LOOK_S = 1.0
_AWAY, _SILENT = "it is not running", "it does not answer"
_UNREACHED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


class WorkerAwayError(Exception):
    """A worker cannot be reached at the moment."""


class WorkerLink:
    """One worker, as its parent sees it."""

    def __init__(self, process: WorkerProcess, workers: int, channel: grpc.aio.Channel, service_token: ServiceToken) -> None:
        self.process = process
        self.admin = AdminClient(process.seat)
        self.number = process.seat.number
        self.name = f"worker {self.number}"
        """Its name in answers and messages."""
        self.slots = slots_of(self.number, workers)
        self.calls: DeliveryServiceAsyncStub = delivery_pb2_grpc.DeliveryServiceStub(channel)
        self._metadata = service_metadata(service_token)
        self.takes_work = False
        """Whether it routes and pushes, by the latest look."""
        self.says = _AWAY
        """Why it does not do all of its work, by the latest look; empty: it does."""
        self.answers = True
        """Whether it has answered the latest look."""

    async def ask(self, method: Any, request: Any, within_s: float) -> Any:  # noqa: ANN401 - any method of the contract
        """Return the worker's answer to a call.

        Raises `WorkerAwayError` if the worker cannot be reached, and else the `Failure` that it answers.
        """
        # A call to a worker that hangs would cost every caller its whole deadline.
        if not self.process.is_ready or not self.answers:
            raise WorkerAwayError(self.name)
        try:
            return await method(request, metadata=self._metadata, timeout=within_s)
        except grpc.aio.AioRpcError as error:
            if error.code() in _UNREACHED and not _is_answer(error):
                raise WorkerAwayError(self.name) from error
            raise failure_from_rpc(error) from error

    async def look(self) -> None:
        """Find out whether it does all of its work."""
        if not self.process.is_ready:
            self.takes_work, self.says, self.answers = False, _AWAY, True
            return
        answer = await self.admin.readiness()
        self.answers = answer is not None
        self.takes_work, self.says = answer or (False, _SILENT)


def _is_answer(error: grpc.aio.AioRpcError) -> bool:
    """Return whether an error is what the worker has answered, and does not come from the connection."""
    return any(key == STATUS_DETAILS_KEY for key, _ in error.trailing_metadata() or ())


class Workers(Sequence[WorkerLink]):
    """The workers in the order of their numbers."""

    def __init__(self, links: Sequence[WorkerLink]) -> None:
        self._links = tuple(links)

    def __getitem__(self, number: Any) -> Any:  # noqa: ANN401 - as a sequence does
        return self._links[number]

    def __len__(self) -> int:
        return len(self._links)

    def of_slot(self, slot: int) -> WorkerLink:
        """Return the owner of a slot."""
        return next(link for link in self._links if slot in link.slots)

    async def run(self) -> None:
        """Run all processes until cancelled; then stop all at the same time. Raises the `StartError` of a worker that cannot start."""
        tasks = [asyncio.create_task(link.process.run(), name=link.name) for link in self._links]  # owned: ended below
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def all_ready(self) -> None:
        """Wait until every worker takes calls, and look at each once."""
        for link in self._links:
            await link.process.ready()
        await self._look()

    async def keep_looking(self) -> None:
        """Look at all workers at intervals."""
        while True:
            await self._look()
            await asyncio.sleep(_LOOK_S)

    async def _look(self) -> None:
        await asyncio.gather(*(link.look() for link in self._links))

    def reload(self) -> None:
        """Let all workers read their settings anew."""
        for link in self._links:
            link.process.reload()

    def states(self) -> dict[str, str]:
        """Return the state of each worker by its name: `READY`, or what is wrong."""
        return {link.name: _state(link) for link in self._links}

    def why_not_ready(self) -> str | None:
        """Return in a sentence why no worker takes work; None if one does."""
        return None if any(link.takes_work for link in self._links) else self._says()

    def why_degraded(self) -> str | None:
        """Return in a sentence which workers do not do all of their work, and why; None if all do."""
        return self._says() or None

    def _says(self) -> str:
        """Return what the workers say, each sentence once."""
        sayings: dict[str, list[str]] = {}
        for link in self._links:
            if link.says or not link.takes_work:
                sayings.setdefault(link.says, []).append(link.name)
        if len(sayings) == 1 and all(link.says for link in self._links) and not {_AWAY, _SILENT} & sayings.keys():
            return next(iter(sayings))
        return "; ".join(f"{', '.join(names)}: {says}" for says, names in sayings.items())

    async def metrics(self) -> dict[int, str]:
        """Return the metrics of the workers that answer, by their numbers."""
        pages = await asyncio.gather(*(link.admin.metrics() for link in self._links))
        return {link.number: page for link, page in zip(self._links, pages, strict=True) if page}


def _state(link: WorkerLink) -> str:
    if link.takes_work:
        return f"degraded: {link.says}" if link.says else READY
    return f"not ready: {link.says}"


@contextlib.asynccontextmanager
async def linked_workers(seats: Sequence[WorkerSeat], lock: int, service_token: ServiceToken) -> AsyncIterator[Workers]:
    """Open the channels to workers whose processes do not run yet; close them at the end."""
    async with contextlib.AsyncExitStack() as stack:
        links = []
        for seat in seats:
            channel = await stack.enter_async_context(open_channel(worker_socket(seat)))
            link = WorkerLink(WorkerProcess(seat, len(seats), lock), len(seats), channel, service_token)
            stack.push_async_callback(link.admin.close)
            links.append(link)
        yield Workers(links)
