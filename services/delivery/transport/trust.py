"""Trust: by which certificates an endpoint is verified, and which one it is shown, made once for all connections that share them.

http → [trust] → connection

Law 1: TLS 1.2 or newer, the certificate verified in full and for the name or address that was called.
Law 2: what one subscription trusts or shows serves no other one, neither by a connection nor by a session.
"""

import asyncio
import functools
import os
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from services.delivery.transport.protocol import Tls

_SESSIONS_MAX = 1024
# Each has the machine's authorities in memory once more, which is about a megabyte.
_TRUSTS_MAX = 128
UNUSABLE = "TLS failed: the client certificate and its key cannot be used; give both as PEM"
UNMADE = "TLS failed: the certificates that it needs could not be read at present"
UNREADABLE = "TLS failed: the certificates of the subscription's own authorities cannot be read; give them as PEM"


class Trust:
    """A context of TLS, with the sessions that its connections may resume."""

    __slots__ = ("_sessions", "context", "retired")

    def __init__(self, context: ssl.SSLContext) -> None:
        """Begin without sessions."""
        self.context = context
        self.retired = False
        """Whether it was forgotten: then no connection need be kept for it."""
        self._sessions: OrderedDict[tuple[str, int], ssl.SSLSession] = OrderedDict()

    def session(self, origin: tuple[str, int]) -> ssl.SSLSession | None:
        """Return the latest session with an endpoint."""
        return self._sessions.get(origin)

    def remember(self, origin: tuple[str, int], session: ssl.SSLSession | None) -> None:
        """Keep a session for the next connection."""
        if session is not None:
            self._sessions[origin] = session
            self._sessions.move_to_end(origin)
            if len(self._sessions) > _SESSIONS_MAX:
                self._sessions.popitem(last=False)


class Trusts:
    """What is trusted, by what subscriptions ask for beyond the usual. Belongs to one event loop; contexts are made in a thread."""

    def __init__(self, roots_pem: bytes) -> None:
        """`roots_pem` are the authorities that are trusted without being asked for; raises `ssl.SSLError` where it has none."""
        # From a file they are read without holding the interpreter up; from memory that would be for 20 ms.
        self._roots = _unnamed(roots_pem)
        self.usual = Trust(_context(self._roots))
        self._loop = asyncio.get_running_loop()
        self._known: OrderedDict[Tls, Trust | str] = OrderedDict()
        self._asking: dict[Tls, list[Callable[[Trust | str], None]]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trust")

    def known(self, tls: Tls) -> Trust | str | None:
        """Return the trust, or why there can be none, as far as it is known; else it has to be asked for."""
        found = self._known.get(tls)
        if found is not None:
            self._known.move_to_end(tls)
        return found

    def ask(self, tls: Tls, then: Callable[[Trust | str], None]) -> None:
        """Have it made; `then` is called once, later, on the event loop, unless this is closed before."""
        waiting = self._asking.get(tls)
        if waiting is not None:
            waiting.append(then)
            return
        self._asking[tls] = [then]
        making = self._loop.run_in_executor(self._thread, _made, self._roots, tls)
        making.add_done_callback(functools.partial(self._arrived, tls))

    def close(self) -> None:
        """Tell nobody any more."""
        self._asking.clear()
        self._thread.shutdown(cancel_futures=True)
        self._roots.close()

    def _arrived(self, tls: Tls, made: "asyncio.Future[Trust | str]") -> None:
        waiting = self._asking.pop(tls, None)
        if waiting is None or made.cancelled():
            return
        if made.exception() is not None:
            # As where this process has as many files open as it may: that passes, and those who ask must hear of it.
            for then in waiting:
                then(UNMADE)
            return
        found = self._known[tls] = made.result()
        if len(self._known) > _TRUSTS_MAX:
            _, forgotten = self._known.popitem(last=False)
            if isinstance(forgotten, Trust):
                forgotten.retired = True
        for then in waiting:
            then(found)


def _made(roots: BinaryIO, tls: Tls) -> Trust | str:
    context = _context(roots)
    if tls.ca_pem:
        try:
            context.load_verify_locations(cadata=tls.ca_pem.decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError):
            return UNREADABLE
    if tls.certificate_pem:
        try:
            _show(context, tls.certificate_pem, tls.key_pem or tls.certificate_pem)
        except ssl.SSLError:
            return UNUSABLE
    return Trust(context)


def _context(roots: BinaryIO) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies certificate and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # What is trusted need not be a root: an operator may trust an intermediate authority alone.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_verify_locations(cafile=_path(roots))
    return context


def _show(context: ssl.SSLContext, certificate_pem: bytes, key_pem: bytes) -> None:
    """Have a context show a certificate. The standard library reads one from files alone: these have no name, and are in memory."""
    with _unnamed(certificate_pem) as certificate, _unnamed(key_pem) as key:
        context.load_cert_chain(_path(certificate), _path(key), password=_no_passphrase)


def _unnamed(content: bytes) -> BinaryIO:
    """Return a file without a name that holds this; in memory, where the system has such files."""
    in_memory = getattr(os, "memfd_create", None)
    file: BinaryIO = tempfile.TemporaryFile() if in_memory is None else os.fdopen(in_memory("hooktide"), "w+b")  # noqa: SIM115 - who asked for it closes it
    file.write(content)
    file.flush()
    return file


def _path(file: BinaryIO) -> str:
    """Return a name by which a file that is open can be read from its beginning."""
    file.seek(0)
    return f"/dev/fd/{file.fileno()}"


def _no_passphrase() -> bytes:
    """Answer where a key is encrypted: without this, OpenSSL would ask the terminal."""
    return b""
