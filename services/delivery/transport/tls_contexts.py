"""TLS contexts: the certificates that verify an endpoint, and the client certificate, in contexts that connections share.

http → [tls_contexts: single_flight] → dialling, connection

Law 1: TLS 1.2 or newer; the endpoint's certificate is verified in full, and for the name or address in the URL.
Law 2: requests share a connection or a TLS session only if their `Tls` is equal.
Law 3: contexts are made one at a time, and consumers take turns. If too many are kept, the consumer with the most loses one.
"""

import asyncio
import functools
import ssl
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from services.delivery.transport.protocol import Tls
from services.delivery.transport.single_flight import SingleFlight
from services.runtime.certificates import show
from services.runtime.fair_semaphore import FairSemaphore, Share
from services.runtime.in_memory_file import open_unnamed, path_of

_SESSIONS_MAX = 1024
# Enough for one subscription and a few like it. There are many such contexts, and a session takes some kilobytes.
_OWN_SESSIONS_MAX = 16
_ONE_AT_A_TIME = Share(permits=1, owner_permits=1)
_OWNER_WAITING_MAX = 2048
UNUSABLE = "TLS failed: the client certificate and its key cannot be used; set both in PEM form"
UNMADE = "TLS failed: the subscription's certificates could not be read"
TOO_LATE = "TLS failed: the subscription's certificates could not be read in time"
TOO_MANY = "TLS failed: too many of this consumer's certificates wait to be read"
UNREADABLE = "TLS failed: the subscription's own certificate authorities cannot be read; set them in PEM form"


class TlsContext:
    """A TLS context, and the sessions that its connections may resume."""

    __slots__ = ("_sessions", "_sessions_max", "context", "retired")

    def __init__(self, context: ssl.SSLContext, sessions_max: int = _SESSIONS_MAX) -> None:
        """Start without sessions."""
        self._sessions_max = sessions_max
        self.context = context
        self.retired = False
        """Whether the cache has dropped this context: its connections then need not be kept."""
        self._sessions: OrderedDict[tuple[str, int], ssl.SSLSession] = OrderedDict()

    def session(self, origin: tuple[str, int]) -> ssl.SSLSession | None:
        """Return the latest session with an endpoint."""
        return self._sessions.get(origin)

    def remember(self, origin: tuple[str, int], session: ssl.SSLSession | None) -> None:
        """Keep a session for the next connection to the endpoint; None changes nothing."""
        if session is not None:
            self._sessions[origin] = session
            self._sessions.move_to_end(origin)
            if len(self._sessions) > self._sessions_max:
                self._sessions.popitem(last=False)


class TlsContexts:
    """A cache of TLS contexts: a default one, and one for each `Tls`. Belongs to one event loop; a thread makes the contexts."""

    def __init__(self, roots_pem: bytes, *, kept_max: Callable[[], int], timeout_s: float) -> None:
        """`roots_pem` are the authorities that every context trusts; raises `ssl.SSLError` if it contains no certificate.

        Besides the default context, up to `kept_max()` contexts are kept; each takes about a megabyte.
        No caller waits for a context longer than `timeout_s`.
        """
        # OpenSSL reads a file without the GIL; reading from memory would hold the GIL for 20 ms.
        self._roots = open_unnamed(roots_pem)
        self.default = TlsContext(_context(self._roots))
        self._kept_max = kept_max
        self._loop = asyncio.get_running_loop()
        self._kept: dict[str, OrderedDict[Tls, TlsContext | str]] = {}
        """By owner, the least recently used first."""
        self._kept_for: dict[Tls, str] = {}
        """The owner that each context counts for; a context counts for one owner only."""
        permits = FairSemaphore(_ONE_AT_A_TIME, owner_waiting_max=_OWNER_WAITING_MAX)
        self._making = SingleFlight[Tls, TlsContext | str](permits, self._make, timeout_s=timeout_s, too_late=TOO_LATE, too_many=TOO_MANY)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tls_contexts")
        self._closed = False

    def cached(self, tls: Tls, owner: str) -> TlsContext | str | None:
        """Return the kept context, or why there can be none; None if it is not known: then call `make`."""
        kept_for = self._kept_for.get(tls)
        if kept_for is None:
            return None
        kept = self._kept[kept_for]
        found = kept[tls]
        if kept_for != owner and len(self._kept.get(owner, ())) < len(kept):
            # Move it to the owner with fewer contexts: there it is kept longest.
            self._remove(tls)
            self._keep(tls, owner, found)
        else:
            kept.move_to_end(tls)
        return found

    def make(self, tls: Tls, owner: str, then: Callable[[TlsContext | str], None]) -> None:
        """Make a context for an owner; call `then` once, later, on the event loop, unless `close` comes first."""
        self._making.ask(tls, owner, then)

    def close(self) -> None:
        """Make no more contexts; callers that wait get no answer."""
        self._closed = True
        self._making.close()
        self._thread.shutdown(cancel_futures=True)
        self._roots.close()

    def _make(self, tls: Tls, owner: str) -> None:
        making = self._loop.run_in_executor(self._thread, _made, self._roots, tls)
        making.add_done_callback(functools.partial(self._arrived, tls, owner))

    def _arrived(self, tls: Tls, owner: str, made: "asyncio.Future[TlsContext | str]") -> None:
        if made.cancelled() or made.exception() is not None or self._closed:
            # The process may have reached its limit of open files. That is temporary, so no verdict is kept, and the callers are told.
            self._making.arrived(tls, UNMADE)
            return
        found = made.result()
        self._keep(tls, owner, found)
        while len(self._kept_for) > self._kept_max():
            most = max(self._kept.values(), key=len)
            forgotten = self._remove(next(iter(most)))
            if isinstance(forgotten, TlsContext):
                forgotten.retired = True
        self._making.arrived(tls, found)

    def _keep(self, tls: Tls, owner: str, found: TlsContext | str) -> None:
        self._kept.setdefault(owner, OrderedDict())[tls] = found
        self._kept_for[tls] = owner

    def _remove(self, tls: Tls) -> TlsContext | str:
        owner = self._kept_for.pop(tls)
        kept = self._kept[owner]
        found = kept.pop(tls)
        if not kept:
            del self._kept[owner]
        return found


def _made(roots: BinaryIO, tls: Tls) -> TlsContext | str:
    context = _context(roots)
    if tls.ca_pem:
        try:
            context.load_verify_locations(cadata=tls.ca_pem.decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError):
            return UNREADABLE
    if tls.certificate_pem:
        try:
            show(context, tls.certificate_pem, tls.key_pem or tls.certificate_pem)
        except ssl.SSLError:
            return UNUSABLE
    return TlsContext(context, _OWN_SESSIONS_MAX)


def _context(roots: BinaryIO) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the certificate and its name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A trusted certificate need not be a root: an operator may trust an intermediate authority alone.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_verify_locations(cafile=path_of(roots))
    return context
