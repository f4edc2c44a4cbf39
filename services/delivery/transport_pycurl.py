"""Transport over libcurl: keep-alive pools on a thread of their own, handed requests and handing back answers in batches.

attempt → [transport] → names → sender → callback URL
"""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from services.delivery.exchange import Flight, Limits, Way, failed
from services.delivery.model import Outcome
from services.delivery.names import Found, Lookup, Names, system_lookup
from services.delivery.sender import Landed, Sender
from services.delivery.transport import WITHDRAWN, Answer, Request
from services.egress.policy import EgressPolicy
from services.egress.urls import parse_url
from services.runtime.lifecycle import StartError

# To judge a URL takes longer than all else that is done here; one that is known takes some two hundred bytes besides its own text.
_URLS_MAX = 16_384
_STOPPED = failed(Outcome.RESET, "the service stopped before the request was sent")


class _Target(NamedTuple):
    """Where a URL leads: to a name, or to an address."""

    name: str
    port: int
    addresses: tuple[str, ...]


class PycurlTransport:
    """Sends by libcurl; made by `open_pycurl_transport`."""

    def __init__(self, policy: EgressPolicy, limits: Limits, way: Way, lookup: Lookup) -> None:
        self._loop = asyncio.get_running_loop()
        self._policy = policy
        self._names = Names(lookup, policy, timeout_s=limits.connect_timeout_s, kept_s=limits.names_kept_s)
        self._target = functools.lru_cache(_URLS_MAX)(self._judged)
        self._unresolved: dict[Flight, None] = {}
        """What waits for its name to be looked up."""
        self._outbox: list[Flight] = []
        self._early: Landed = []
        self._flush_asked = False
        self._closed = False
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done once the sender's thread has ended; carries its fault, if it had one."""
        self._sender = Sender(way, limits, self._land_soon, self._ended_soon)
        self._sender.start()

    def send(self, request: Request, done: Callable[[Answer], None]) -> None:
        """Begin to send; see `Transport.send`."""
        flight, target = Flight(request, done), self._target(request.url)
        if isinstance(target, str):
            self._come_out(flight, failed(Outcome.BLOCKED, target))
            return
        flight.name, flight.port, flight.addresses = target
        if flight.addresses:
            self._put(flight)
            return
        found = self._names.known(flight.name)
        if found is None:
            self._unresolved[flight] = None
            self._names.ask(flight.name, functools.partial(self._resolved, flight))
        else:
            self._go(flight, found)

    def withdraw(self, subscription_id: str) -> None:
        """See `Transport.withdraw`."""
        if self._closed:
            return
        for flight in [each for each in self._unresolved if each.request.subscription_id == subscription_id]:
            del self._unresolved[flight]
            self._come_out(flight, WITHDRAWN)
        self._hand_out()
        self._sender.withdraw(subscription_id)

    async def close(self) -> None:
        """Cut off what is under way: it is answered as reset before this returns."""
        self._closed = True
        self._names.close()
        self._flush()
        self._sender.stop()
        await asyncio.wait([self.ended])
        self._sender.join()

    def _judged(self, url: str) -> "_Target | str":
        """Return where a URL leads, or why it may not be called."""
        why = self._policy.check_url(url)
        if why is not None:
            return why
        parts = parse_url(url)
        if isinstance(parts.host, str):
            return _Target(parts.host, parts.port, ())
        return _Target("", parts.port, (str(parts.host),))

    def _resolved(self, flight: Flight, found: Found) -> None:
        if flight in self._unresolved:
            del self._unresolved[flight]
            self._go(flight, found)

    def _go(self, flight: Flight, found: Found) -> None:
        if found.failure is not None:
            self._come_out(flight, failed(found.failure, found.error))
        else:
            flight.addresses = found.addresses
            self._put(flight)

    # To the thread, once for all that an iteration of the event loop brings

    def _put(self, flight: Flight) -> None:
        if self._closed:
            self._come_out(flight, _STOPPED)
            return
        self._outbox.append(flight)
        self._ask_flush()

    def _come_out(self, flight: Flight, answer: Answer) -> None:
        self._early.append((flight, answer))
        self._ask_flush()

    def _ask_flush(self) -> None:
        if not self._flush_asked:
            self._flush_asked = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_asked = False
        self._hand_out()
        if self._early:
            early, self._early = self._early, []
            self._land(early)

    def _hand_out(self) -> None:
        if self._outbox:
            self._sender.put(self._outbox)
            self._outbox = []

    # Back from the thread

    def _land_soon(self, landed: Landed) -> None:
        self._loop.call_soon_threadsafe(self._land, landed)

    def _land(self, landed: Landed) -> None:
        for flight, answer in landed:
            if flight.tried and answer.outcome is not Outcome.CONNECT:
                self._names.prefer(flight.name, flight.addresses[flight.tried])
            flight.done(answer)

    def _ended_soon(self, error: BaseException | None) -> None:
        self._loop.call_soon_threadsafe(self._has_ended, error)

    def _has_ended(self, error: BaseException | None) -> None:
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)


def roots_file() -> str:
    """Return the file of the certificates that this machine trusts; `SSL_CERT_FILE` names another one.

    Raises `StartError` where there is none.
    """
    path = ssl.get_default_verify_paths().cafile
    if path is None:
        raise StartError("this machine has no file of trusted certificates; install ca-certificates, or name one in SSL_CERT_FILE")
    return path


def _way(policy: EgressPolicy, file: str, proxy: str) -> Way:
    try:
        return Way(policy.check_address, file, Path(file).read_bytes(), proxy)
    except OSError as error:
        raise StartError(f"the file of trusted certificates, {file}, cannot be read: {error.strerror}") from error


@contextlib.asynccontextmanager
async def open_pycurl_transport(
    policy: EgressPolicy, limits: Limits, *, proxy: str = "", lookup: Lookup = system_lookup, roots: str = ""
) -> AsyncIterator[PycurlTransport]:
    """Start the sender; on exit requests under way are cut off and answered as reset.

    `proxy` is the operator's (``http://host:port``), by which everything then goes, `lookup` resolves names,
    and `roots` is a file of certificates to trust in place of this machine's; `StartError` where it cannot be read.
    A fault of the sender ends the body.
    """
    transport = PycurlTransport(policy, limits, _way(policy, roots or roots_file(), proxy), lookup)

    async def watch() -> None:
        await asyncio.shield(transport.ended)

    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        try:
            yield transport
        except Exception as error:  # noqa: BLE001 - raised below: within the group it would become a group of one
            failure = error
        finally:
            await transport.close()
            if transport.ended.exception() is None:
                watching.cancel()
    if failure is not None:
        raise failure
