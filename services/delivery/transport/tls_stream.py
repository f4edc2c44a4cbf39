"""Secured: a socket with TLS over it, which takes and gives as a socket does.

dialling → [secured] → connection

Law 1: nothing waits, and no call reads more than a piece: OpenSSL by itself reads on for as long as nothing but its own messages comes,
which an endpoint can send without an end.
Law 2: beside the data that an endpoint sends, it sends little.
"""

import contextlib
import socket
import ssl

_PIECE_BYTES = 16 * 1024
# The handshake is in it, with certificates of up to 100 KB. A record of one byte takes 23.
_BYTES_BESIDE_MAX = 256 * 1024
_BYTES_PER_BYTE_MAX = 32


class Secured:
    """One end of a connection by TLS, as a client; owns the socket under it."""

    __slots__ = ("_incoming", "_outgoing", "_packed", "_plain_bytes", "_received_bytes", "_sending", "_socket", "_tls", "has_replied")

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None) -> None:
        """Take a socket that is connected and does not block; `name` is what its certificate is to be for."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=session)
        self._socket = connected
        self._packed = b""
        self._sending = 0
        """How much of the data to be sent is packed, but has not all left."""
        self._received_bytes = self._plain_bytes = 0
        self.has_replied = False
        """Whether TLS has sent something of its own since the handshake, as its answer to a change of keys."""

    @property
    def session(self) -> ssl.SSLSession | None:
        """What another connection may resume."""
        return self._tls.session

    def fileno(self) -> int:
        """Return the socket's number."""
        return self._socket.fileno()

    def getsockopt(self, level: int, option: int, size_bytes: int) -> bytes:
        """Return an option of the socket."""
        return self._socket.getsockopt(level, option, size_bytes)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def do_handshake(self) -> None:
        """Go on with the handshake. Raises `OSError` where it fails, `SSLWantReadError` or `SSLWantWriteError` where it waits."""
        with contextlib.suppress(BlockingIOError):
            self._receive()
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            if self._flushed():
                raise
        except ssl.SSLError:
            # The endpoint is to hear of it too.
            with contextlib.suppress(OSError):
                self._flushed()
            raise
        if not self._flushed():
            raise ssl.SSLWantWriteError

    def send(self, data: "bytes | memoryview") -> int:
        """Send a piece of `data` and return its size; after a `BlockingIOError`, the next call has to begin with the same data."""
        if not self._sending:
            self._sending = self._tls.write(data if len(data) <= _PIECE_BYTES else memoryview(data)[:_PIECE_BYTES])
        if not self._flushed():
            raise BlockingIOError
        sent, self._sending = self._sending, 0
        return sent

    def recv_into(self, buffer: memoryview) -> int:
        """Read some of what has come; 0 at the end. Raises `BlockingIOError` or `SSLWantReadError` where there is nothing now."""
        if not self.pending():
            self._receive()
        try:
            count: int = self._tls.read(len(buffer), buffer)  # type: ignore[assignment]  # a number, where there is a buffer
        except ssl.SSLEOFError:
            return 0
        finally:
            if self._outgoing.pending or self._packed:
                # What TLS has to say to what came; that it cannot be sent is no reason to lose what was read.
                self.has_replied = True
                with contextlib.suppress(OSError):
                    self._flushed()
        self._plain_bytes += count
        return count

    def pending(self) -> int:
        """Return how much is here already, of which the event loop does not know."""
        return self._tls.pending() or self._incoming.pending

    def is_drained(self) -> bool:
        """Say whether nothing has come behind what was read."""
        if not self.pending():
            return True
        try:
            self._tls.read(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            pass
        return False

    def unwrap(self) -> None:
        """Tell the endpoint that this is the end."""
        try:
            self._tls.unwrap()
        finally:
            self._flushed()

    def _receive(self) -> None:
        data = self._socket.recv(_PIECE_BYTES)
        if not data:
            self._incoming.write_eof()
            return
        self._received_bytes += len(data)
        if self._received_bytes > _BYTES_BESIDE_MAX + _BYTES_PER_BYTE_MAX * self._plain_bytes:
            error = ssl.SSLError(ssl.SSL_ERROR_SSL, "too much beside the data")
            error.reason = "too much beside the data"
            raise error
        self._incoming.write(data)

    def _flushed(self) -> bool:
        """Send what is packed; returns whether all of it has left."""
        if self._outgoing.pending:
            new = self._outgoing.read()
            self._packed = self._packed + new if self._packed else new
        try:
            while self._packed:
                sent = self._socket.send(self._packed)
                self._packed = self._packed[sent:] if sent < len(self._packed) else b""
        except BlockingIOError:
            return False
        return True
