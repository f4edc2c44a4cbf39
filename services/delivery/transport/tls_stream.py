"""TLS stream: a socket with TLS over it, with the methods of a socket.

dialling → [tls_stream] → connection

Law 1: no call blocks, and no call reads more than one piece (16 KiB) from the socket. OpenSSL by itself would read on while only TLS's
own messages come, and an endpoint can send those without end.
Law 2: an endpoint may send only a bounded number of bytes besides its data.
"""

import contextlib
import socket
import ssl

_PIECE_BYTES = 16 * 1024
# This includes the handshake, with certificates of up to 100 KB. A record with one byte of data takes 23 bytes.
_BYTES_BESIDE_MAX = 256 * 1024
_BYTES_PER_BYTE_MAX = 32


class TlsStream:
    """The client's end of a TLS connection; owns the socket under it."""

    __slots__ = ("_incoming", "_outgoing", "_packed", "_plain_bytes", "_received_bytes", "_sending", "_socket", "_tls", "has_replied")

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None) -> None:
        """Take a connected non-blocking socket; the endpoint's certificate must be valid for `name`."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=session)
        self._socket = connected
        self._packed = b""
        self._sending = 0
        """How many bytes of the caller's data are encrypted but have not wholly left; 0 if none."""
        self._received_bytes = self._plain_bytes = 0
        self.has_replied = False
        """Whether TLS has sent a message of its own since the handshake, such as a reply to a key update."""

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session that another connection may resume."""
        return self._tls.session

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._socket.fileno()

    def getsockopt(self, level: int, option: int, size_bytes: int) -> bytes:
        """Return an option of the socket."""
        return self._socket.getsockopt(level, option, size_bytes)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def do_handshake(self) -> None:
        """Go on with the handshake. Raises `SSLWantReadError` or `SSLWantWriteError` while it waits, another `OSError` if it fails."""
        with contextlib.suppress(BlockingIOError):
            self._receive()
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            if self._flushed():
                raise
        except ssl.SSLError:
            # Send the endpoint the alert.
            with contextlib.suppress(OSError):
                self._flushed()
            raise
        if not self._flushed():
            raise ssl.SSLWantWriteError

    def send(self, data: "bytes | memoryview") -> int:
        """Send a piece of `data` and return its size; after a `BlockingIOError`, the next call must begin with the same data."""
        if not self._sending:
            self._sending = self._tls.write(data if len(data) <= _PIECE_BYTES else memoryview(data)[:_PIECE_BYTES])
        if not self._flushed():
            raise BlockingIOError
        sent, self._sending = self._sending, 0
        return sent

    def recv_into(self, buffer: memoryview) -> int:
        """Read received data into `buffer`; returns 0 at the end. Raises `BlockingIOError` or `SSLWantReadError` if no data has come."""
        if not self.pending():
            self._receive()
        try:
            count: int = self._tls.read(len(buffer), buffer)  # type: ignore[assignment]  # a number if a buffer is given
        except ssl.SSLEOFError:
            return 0
        finally:
            if self._outgoing.pending or self._packed:
                # TLS replies to a message that it received. If the reply cannot be sent, the data read so far must not be lost.
                self.has_replied = True
                with contextlib.suppress(OSError):
                    self._flushed()
        self._plain_bytes += count
        return count

    def pending(self) -> int:
        """Return how many bytes were already read from the socket; the event loop does not report them as readable."""
        return self._tls.pending() or self._incoming.pending

    def is_drained(self) -> bool:
        """Return whether no data has come after the data that was read."""
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
        """Send the endpoint `close_notify`."""
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
            error = ssl.SSLError(ssl.SSL_ERROR_SSL, "more protocol overhead than the data needs")
            error.reason = "more protocol overhead than the data needs"
            raise error
        self._incoming.write(data)

    def _flushed(self) -> bool:
        """Send the encrypted bytes, and return whether all of them have left."""
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
