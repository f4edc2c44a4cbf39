"""Store: access to the registry's database. One thread writes, one thread reads, and neither blocks the event loop.

server, watch → [store] → transaction → database

Law 1: watches are woken for a write after its commit, and before its caller gets the result.
Law 2: no caller learns of a change of a subscription before every holder of a read lease knows the change.
Law 3: a revision that the store reports, or grants a read lease for, is never older than a state that a reader has seen: the store
waits for a commit under way.
Law 4: after a failed sync, an I/O error or damage, nothing more is written and the process ends; also after the file was removed or
replaced. A full disk only refuses the write.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Never, TypeVar

import sqlalchemy as sa

from services.runtime import failpoints
from services.runtime.clock import Clock, SystemClock, unix_ms
from services.runtime.database_files import FileGoneError
from services.runtime.errors import Failure
from services.runtime.service_process import ServiceProcess
from services.runtime.steady_clock import SteadyClock
from services.subscription.errors import overloaded, storage_full, unavailable
from services.subscription.model import ResumePoint
from services.subscription.store.read_leases import ReadLeases
from services.subscription.store.sqlite import ErrorKind, kind_of
from services.subscription.store.startup_checks import OpenRegistry
from services.subscription.store.transaction import Reading, Writing

WAITING_MAX = 1000
SNAPSHOTS_MAX = 4
# While a snapshot is read, the database cannot clean up what later writes have replaced.
SNAPSHOT_S = 120.0

Result = TypeVar("Result")


@contextlib.asynccontextmanager
async def running_store(registry: OpenRegistry, process: ServiceProcess, clock: Clock | None = None) -> AsyncIterator["Store"]:
    """Run the store of an open registry, with its threads."""
    store = Store(registry, process, clock or SteadyClock(SystemClock()))
    try:
        yield store
    finally:
        await store.close()


class Store:
    """Reads and writes a registry, and lets callers wait for a new revision."""

    def __init__(self, registry: OpenRegistry, process: ServiceProcess, clock: Clock) -> None:
        self.registry_id = registry.registry_id
        self._registry = registry
        self._latest = registry.latest
        self._coming = self._latest.revision
        self._process = process
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.leases = ReadLeases(self._loop, earlier_leases_possible=not registry.database.is_new)
        """The read leases, whose holders rely on their replicas of the subscriptions."""
        self._read_engine = registry.database.open_reader(SNAPSHOTS_MAX + 1)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="registry-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="registry-reader")
        self._snapshots = asyncio.Semaphore(SNAPSHOTS_MAX)
        self._changed = asyncio.Event()
        self._waiting = 0
        self._watching_over = False
        self._broken = False

    @property
    def commit_under_way(self) -> bool:
        """Whether a reader may see a change that is not yet noted as the latest change."""
        return self._coming > self._latest.revision

    async def latest_point(self) -> ResumePoint:
        """Return the point of the latest change, after the commit under way; raises UNAVAILABLE once watching is over.

        Every state that a reader has seen before this call is at or below that point.
        """
        coming = self._coming
        while self._latest.revision < coming <= self._coming:
            self.check_watching()
            await self._changed.wait()
        return self._latest

    @property
    def broken(self) -> bool:
        """Whether the database failed, so that no more writes are possible."""
        return self._broken

    async def write(self, work: Callable[[Writing], Result]) -> Result:
        """Run `work` in its own transaction, which is committed and synced when this returns.

        An error of `work` rolls the transaction back and is raised here. Raises STORAGE_FULL, UNAVAILABLE and OVERLOADED.
        """
        return await self._confirmed(self._run(self._writer, lambda: self._write(work)))

    async def read(self, work: Callable[[Reading], Result]) -> Result:
        """Run `work` over one consistent state; raises as `write` does."""
        return await self._run(self._reader, lambda: self._read(work))

    async def read_confirmed(self, work: Callable[[Reading], Result]) -> Result:
        """Run `work` as `read` does; return only after every holder of a read lease knows the changes that the result may show."""
        return await self._confirmed(self.read(work))

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator["Snapshot"]:
        """Hold one consistent state for up to `SNAPSHOT_S`; at most `SNAPSHOTS_MAX` are held at once, further callers wait."""
        async with self._snapshots:
            snapshot = Snapshot(self)
            expiry = self._loop.call_later(SNAPSHOT_S, self._reader.submit, snapshot.end)
            try:
                yield snapshot
            finally:
                expiry.cancel()
                # If the threads have already ended, the connection ends with the process.
                with contextlib.suppress(RuntimeError):
                    self._reader.submit(snapshot.end)

    async def wait_beyond(self, revision: int) -> None:
        """Return once the latest revision is higher than `revision`; raises UNAVAILABLE once watching is over."""
        while True:
            self.check_watching()
            if self._latest.revision > revision:
                return
            await self._changed.wait()

    async def until_watching_ends(self) -> Never:
        """Wait until watching is over; then raise UNAVAILABLE."""
        while True:
            self.check_watching()
            await self._changed.wait()

    def check_watching(self) -> None:
        """Raise UNAVAILABLE once watching is over."""
        if self._watching_over:
            raise unavailable("the service is stopping")

    def stop_watching(self) -> None:
        """End every present and future watch."""
        self._watching_over = True
        self._wake()

    async def close(self) -> None:
        """End the watches and, once their work is done, the threads."""
        self.stop_watching()
        await asyncio.to_thread(self._writer.shutdown)
        await asyncio.to_thread(self._reader.shutdown)
        self._read_engine.dispose()

    async def _confirmed(self, work: Awaitable[Result]) -> Result:
        """Return the result of `work`, or raise its failure, once every holder of a read lease knows the changes that either may show."""
        try:
            result = await work
        except Failure:
            await self.leases.wait_until_confirmed(self._coming)
            raise
        await self.leases.wait_until_confirmed(self._coming)
        return result

    async def _run(self, executor: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        if self._waiting >= WAITING_MAX:
            raise overloaded()
        self._waiting += 1
        try:
            return await self._loop.run_in_executor(executor, work)
        finally:
            self._waiting -= 1

    def _write(self, work: Callable[[Writing], Result]) -> Result:
        if self._broken:
            raise unavailable("its database failed")
        # Also before the transaction: a new connection would create a missing file.
        self._check_database()
        try:
            with self._registry.database.writer.begin() as connection:
                writing = Writing(connection, self._registry.vault, unix_ms(self._clock), self._registry.changes_kept)
                result = work(writing)
                # From the commit on, a reader may see the change before it is noted below.
                self._coming = writing.change.revision if writing.change else self._latest.revision
                failpoints.reached("registry.before_commit")
            failpoints.reached("registry.after_commit")
        except BaseException as error:
            if self.commit_under_way:
                self._coming = self._latest.revision
                self._loop.call_soon_threadsafe(self._wake)
            if isinstance(error, sa.exc.DBAPIError):
                raise self._explained(error) from error
            raise
        self._check_database()
        if writing.change is not None:
            self._latest = writing.change
            self._loop.call_soon_threadsafe(self._wake)
        return result

    def _read(self, work: Callable[[Reading], Result]) -> Result:
        self._check_database()
        try:
            with self._read_engine.begin() as connection:
                return work(self._reading(connection))
        except sa.exc.DBAPIError as error:
            raise self._explained(error) from error

    def _check_database(self) -> None:
        try:
            self._registry.database.check()
        except FileGoneError as error:
            self._broken = True
            self._loop.call_soon_threadsafe(self._process.fail, error)
            raise unavailable("its database failed") from error

    def _reading(self, connection: sa.Connection) -> Reading:
        return Reading(connection, self._registry.vault, unix_ms(self._clock))

    def _explained(self, error: sa.exc.DBAPIError) -> Exception:
        match kind_of(error):
            case ErrorKind.FULL:
                return storage_full()
            case ErrorKind.LOCKED:
                return unavailable("another program has locked its database")
            case ErrorKind.BROKEN:
                self._broken = True
                self._loop.call_soon_threadsafe(self._process.fail, error)
                return unavailable("its database failed")
            case ErrorKind.OTHER:
                return error

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Snapshot:
    """One consistent state, held over several reads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection: sa.Connection | None = None
        self._ended = False

    async def read(self, work: Callable[[Reading], Result]) -> Result:
        """Run `work` over the state of the first read; raises UNAVAILABLE once that state was held for too long."""
        return await self._store._run(self._store._reader, lambda: self._read(work))  # noqa: SLF001 - two halves of one thing

    def end(self) -> None:
        """Release the state; runs on the reader's thread."""
        self._ended = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read(self, work: Callable[[Reading], Result]) -> Result:
        if self._ended:
            raise unavailable("the snapshot was taken too slowly")
        self._store._check_database()  # noqa: SLF001 - two halves of one thing
        try:
            if self._connection is None:
                self._connection = self._store._read_engine.connect()  # noqa: SLF001 - two halves of one thing
            return work(self._store._reading(self._connection))  # noqa: SLF001 - two halves of one thing
        except sa.exc.DBAPIError as error:
            raise self._store._explained(error) from error  # noqa: SLF001 - two halves of one thing
