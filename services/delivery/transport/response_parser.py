"""Response parser: parses the answers that come over one connection, as far as the transport needs them.

connection → [response_parser] → answer

Law 1: the parser keeps a bounded part of each answer, however the answer is framed, and reads no more of a body than the limit.
Law 2: only HTTP/1.x is an answer. llhttp parses it strictly, with one leniency: a line may end without a carriage return. This file
itself checks that each answer begins with `HTTP/1.`, because llhttp also accepts RTSP, ICE and HTTP/2.0.
"""

import httptools

from services.delivery.transport.protocol import RESPONSE_BYTES_KEPT, RESPONSE_BYTES_MAX, Answer, Outcome

HEAD_BYTES_MAX = 64 * 1024
# A body may come in chunks of one byte; each chunk takes six bytes.
_BYTES_PER_BODY_BYTE_MAX = 8
_OK = range(200, 300)
# Made once, because nearly every answer is one of these.
_DELIVERED = {status: Answer(Outcome.DELIVERED, status, "", b"", "") for status in _OK}
_FINAL_MIN = 200
_BEGINNING = b"HTTP/1."
# The index of the status's first digit, which shows whether an answer is interim (1xx).
_STATUS_AT = 9
_SWITCHING = 101
_HEADER_CHARS_MAX = 200
_LATEST_BYTES_MAX = 1024


class _EnoughError(Exception):
    """Enough has been read; stops the parser."""


class _SwitchError(Exception):
    """The endpoint wants to speak another protocol."""


class ResponseParser:
    """Parses one answer after another. llhttp calls the `on_…` methods."""

    __slots__ = (
        *("_body", "_body_size", "_complete", "_headers", "_is_final", "_latest", "_opening", "_parser", "_received"),
        *("keeps", "status", "whole"),
    )

    def __init__(self) -> None:
        """Start before the first answer."""
        self._parser = httptools.HttpResponseParser(self)
        # RFC 9112, section 2.2: a recipient may accept a single line feed as the end of a line.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
        self.whole = False
        """Whether the caller wants headers and body for any status, up to the limits."""
        self.keeps = False
        """After a complete answer: whether the connection may serve another request."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        """The part of the body that is kept."""
        self._body_size = 0
        """The size of the whole body so far, in bytes."""
        self._latest = b"", 0
        """The latest answer that was a short 2xx, came in one piece and kept the connection; with its status."""
        self._renew()

    def _renew(self) -> None:
        self._complete = False
        """Whether the answer has come whole, or up to the limit."""
        self.status = 0
        """0 until the head has come; interim answers do not count."""
        self._received = 0
        """How many bytes of the answer have come, with its head and the interim answers before it."""
        self._is_final = False
        """Whether the present answer began as an HTTP/1 answer that is not interim."""
        self._opening: bytes | None = b""
        """The beginning of an answer while its status is unknown; None within an interim answer. Meaningless once `_is_final`."""
        if self._headers:
            self._headers = []
        if self._body:
            self._body = bytearray()
            self._body_size = 0

    @property
    def begun(self) -> bool:
        """Whether any byte of the answer has come."""
        return self._received > 0

    def feed(self, data: memoryview) -> bool:
        """Parse received data and return whether the answer is complete. Raises `ValueError` if it is not HTTP, or too large."""
        latest, status = self._latest
        size = len(data)
        if size == len(latest) and not self._received and not self.whole and bytes(data) == latest:
            # An endpoint mostly repeats its last answer byte for byte: the parser is in the same state as then, so the result is the same.
            self.status, self._complete, self.keeps = status, True, True
            return True
        if not self._received:
            self._is_final = size > _STATUS_AT and data[: len(_BEGINNING)] == _BEGINNING and data[_STATUS_AT] != ord("1")
        self._received += size
        try:
            if self._is_final:
                self._parser.feed_data(data)
            else:
                self._feed_lines(bytes(data))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # Data after a complete answer is not parsed.
            if not self._complete:
                raise ValueError from error
            self.keeps = False
        if self._complete:
            if self.keeps and self._received == size <= _LATEST_BYTES_MAX and self.status in _OK:
                self._latest = bytes(data), self.status
            return True
        # llhttp does not bound trailers and chunk extensions; this does.
        if self._received > HEAD_BYTES_MAX + _BYTES_PER_BODY_BYTE_MAX * self._body_size:
            raise ValueError
        return False

    def _feed_lines(self, data: bytes) -> None:
        """Parse data line by line while an answer is interim or its status is unknown: each answer begins at the start of a line.

        Raises `ValueError` if an answer does not begin with `HTTP/1.`.
        """
        at = 0
        while at < len(data):
            end = data.find(b"\n", at) + 1 or len(data)
            if self._opening is not None:
                # RFC 9112, section 2.2: empty lines may precede a message.
                self._opening = (self._opening + data[at:end]).lstrip(b"\r\n")[: _STATUS_AT + 1]
                if not self._opening.startswith(_BEGINNING[: len(self._opening)]):
                    raise ValueError
                if len(self._opening) > _STATUS_AT:
                    self._is_final, self._opening = self._opening[_STATUS_AT] != ord("1"), None
                    if self._is_final:
                        self._parser.feed_data(data[at:])
                        return
            self._parser.feed_data(data[at:end])
            at = end

    def ends_here(self) -> bool:
        """Return whether the end of the connection completes the answer: it does if no header gives the body's length."""
        if not self.status:
            return False
        framing = {name.lower(): value.lower() for name, value in self._headers}
        return b"content-length" not in framing and not framing.get(b"transfer-encoding", b"").rstrip().endswith(b"chunked")

    def answer(self) -> Answer:
        """Return the complete answer, and get ready for the next one."""
        status = self.status
        answer = None if self.whole else _DELIVERED.get(status)
        if answer is None:
            answer = self._answer_of(status)
        self._renew()
        return answer

    def _answer_of(self, status: int) -> Answer:
        headers, body = self._texts(), bytes(self._body)
        if status in _OK:
            return Answer(Outcome.DELIVERED, status, "", body, "", headers)
        retry_after = headers.get("retry-after", "")[:_HEADER_CHARS_MAX]
        return Answer(Outcome.STATUS, status, f"the server answered {status}", body, retry_after, headers if self.whole else {})

    def _texts(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        for name, value in self._headers:
            texts.setdefault(name.decode("latin-1").lower(), value.decode("latin-1").strip())
        return texts

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Note the beginning of an answer; if the present one is complete, stop the parser: nobody requested another answer."""
        if self._complete:
            raise _EnoughError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Note the end of the head; drop the headers of an interim answer."""
        status = self._parser.get_status_code()
        if status >= _FINAL_MIN:
            self.status = status
        elif status == _SWITCHING:
            raise _SwitchError
        else:
            self._headers.clear()

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body, up to the limit."""
        room = (RESPONSE_BYTES_MAX if self.whole else RESPONSE_BYTES_KEPT) - len(self._body)
        if room > 0:
            self._body += data[:room]
        self._body_size += len(data)
        if self._body_size >= RESPONSE_BYTES_MAX:
            self._complete, self.keeps = True, False
            raise _EnoughError

    def on_message_complete(self) -> None:
        """Note the end of an interim or a final answer."""
        if self.status:
            self._complete = True
            self.keeps = self._parser.should_keep_alive()
        else:
            self._opening = b""


class TunnelResponseParser:
    """Parses a proxy's answer to CONNECT."""

    def __init__(self) -> None:
        """Start before the answer."""
        self._parser = httptools.HttpResponseParser(self)
        self._bytes = 0
        self._opening = b""
        self.status = 0
        """0 until the head has come."""

    def feed(self, data: memoryview) -> bool:
        """Parse received data and return whether the head is complete. Raises `ValueError` if it is not HTTP, or too large."""
        self._bytes += len(data)
        self._opening = (self._opening + data[: len(_BEGINNING)])[: len(_BEGINNING)]
        if not _BEGINNING.startswith(self._opening):
            raise ValueError
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.status:
                raise ValueError from error
        if self._bytes > HEAD_BYTES_MAX and not self.status:
            raise ValueError
        return bool(self.status)

    def on_headers_complete(self) -> None:
        """Note the end of the head."""
        status = self._parser.get_status_code()
        if status >= _FINAL_MIN and not self.status:
            self.status = status

    @property
    def opened(self) -> bool:
        """Whether the proxy has opened the tunnel."""
        return self.status in _OK
