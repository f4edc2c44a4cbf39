"""Reading: the answers that come over one connection, read as far as they are wanted.

connection → [reading] → answer

Law 1: what is kept of an answer is bounded, however it is framed, and of its body no more is read than may be.
Law 2: what is not HTTP/1.x is no answer: llhttp reads it, and of its leniencies has none but for lines that end without a carriage return.
That each answer begins as HTTP/1 does is seen to here: llhttp also takes RTSP, ICE and HTTP/2.0.
"""

import httptools

from services.delivery.transport.protocol import RESPONSE_BYTES_KEPT, RESPONSE_BYTES_MAX, Answer, Outcome

HEAD_BYTES_MAX = 64 * 1024
# A body may come in chunks of one byte, each of which takes six.
_BYTES_PER_BODY_BYTE_MAX = 8
_OK = range(200, 300)
# Made once: nearly all answers are one of these.
_DELIVERED = {status: Answer(Outcome.DELIVERED, status, "", b"", "") for status in _OK}
_FINAL_MIN = 200
_BEGINNING = b"HTTP/1."
# Where the first digit of the status stands; by it an interim answer is known.
_STATUS_AT = 9
_SWITCHING = 101
_HEADER_CHARS_MAX = 200
_LATEST_BYTES_MAX = 1024


class _EnoughError(Exception):
    """As much is here as is ever read."""


class _SwitchError(Exception):
    """The endpoint wants to speak another protocol."""


class Reading:
    """Reads one answer after another. The parser calls its `on_…`."""

    __slots__ = (
        *("_body", "_body_size", "_complete", "_headers", "_is_final", "_latest", "_opening", "_parser", "_received"),
        *("keeps", "status", "whole"),
    )

    def __init__(self) -> None:
        """Begin."""
        self._parser = httptools.HttpResponseParser(self)
        # RFC 9112, section 2.2: who reads may take a line feed alone for a line's end.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
        self.whole = False
        """Whether headers and body are wanted whatever the status, up to the limits."""
        self.keeps = False
        """Of an answer that is complete: whether the connection may serve another request."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        """What is kept of it."""
        self._body_size = 0
        """Of all of it, in bytes."""
        self._latest = b"", 0
        """The latest answer that was a short 2xx in one piece, and left all as it was; with its status."""
        self._renew()

    def _renew(self) -> None:
        self._complete = False
        """Whether all of the answer has come, or as much as is read."""
        self.status = 0
        """0 until the head has come, of interim answers aside."""
        self._received = 0
        """How many bytes of it have come, head and all."""
        self._is_final = False
        """Whether what is read now began as an answer of HTTP/1 does that is no interim one."""
        self._opening: bytes | None = b""
        """The beginning of an answer whose status is not known; None within an interim one. Of no meaning once it is final."""
        if self._headers:
            self._headers = []
        if self._body:
            self._body = bytearray()
            self._body_size = 0

    @property
    def begun(self) -> bool:
        """Whether anything of the answer has come."""
        return self._received > 0

    def feed(self, data: memoryview) -> bool:
        """Take what has come; returns whether the answer is complete. Raises `ValueError` where it is no HTTP, or too large."""
        latest, status = self._latest
        size = len(data)
        if size == len(latest) and not self._received and not self.whole and bytes(data) == latest:
            # An endpoint mostly answers as it did before: to the last byte what was parsed then, from where the parser stands now.
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
            # What comes after an answer that is complete is not looked at.
            if not self._complete:
                raise ValueError from error
            self.keeps = False
        if self._complete:
            if self.keeps and self._received == size <= _LATEST_BYTES_MAX and self.status in _OK:
                self._latest = bytes(data), self.status
            return True
        # Trailers and what is said of chunks are without end elsewhere.
        if self._received > HEAD_BYTES_MAX + _BYTES_PER_BODY_BYTE_MAX * self._body_size:
            raise ValueError
        return False

    def _feed_lines(self, data: bytes) -> None:
        """Feed what begins with an interim answer, or with less than a status, line by line: an answer begins with a line.

        Raises `ValueError` where one begins otherwise than HTTP/1 does.
        """
        at = 0
        while at < len(data):
            end = data.find(b"\n", at) + 1 or len(data)
            if self._opening is not None:
                # RFC 9112, section 2.2: an empty line may stand before what begins.
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
        """Say whether the answer is complete now that the connection has ended: it is where nothing else says how long its body is."""
        if not self.status:
            return False
        framing = {name.lower(): value.lower() for name, value in self._headers}
        return b"content-length" not in framing and not framing.get(b"transfer-encoding", b"").rstrip().endswith(b"chunked")

    def answer(self) -> Answer:
        """Return the answer that is complete, and begin with another."""
        status = self.status
        answer = None if self.whole else _DELIVERED.get(status)
        if answer is None:
            answer = self._told(status)
        self._renew()
        return answer

    def _told(self, status: int) -> Answer:
        headers, body = self._texts(), bytes(self._body)
        if status in _OK:
            return Answer(Outcome.DELIVERED, status, "", body, "", headers)
        retry_after = headers.get("retry-after", "")[:_HEADER_CHARS_MAX]
        return Answer(Outcome.STATUS, status, f"the endpoint answered {status}", body, retry_after, headers if self.whole else {})

    def _texts(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        for name, value in self._headers:
            texts.setdefault(name.decode("latin-1").lower(), value.decode("latin-1").strip())
        return texts

    # What the parser calls

    def on_message_begin(self) -> None:
        """Take the beginning; what follows an answer that is complete, nobody has asked for: it ends the reading."""
        if self._complete:
            raise _EnoughError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take the head's end; of an interim answer nothing is kept."""
        status = self._parser.get_status_code()
        if status >= _FINAL_MIN:
            self.status = status
        elif status == _SWITCHING:
            raise _SwitchError
        else:
            self._headers.clear()

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        room = (RESPONSE_BYTES_MAX if self.whole else RESPONSE_BYTES_KEPT) - len(self._body)
        if room > 0:
            self._body += data[:room]
        self._body_size += len(data)
        if self._body_size >= RESPONSE_BYTES_MAX:
            self._complete, self.keeps = True, False
            raise _EnoughError

    def on_message_complete(self) -> None:
        """Take the end, of an interim answer or of the one that counts."""
        if self.status:
            self._complete = True
            self.keeps = self._parser.should_keep_alive()
        else:
            self._opening = b""


class TunnelReading:
    """Reads a proxy's answer to CONNECT."""

    def __init__(self) -> None:
        """Begin."""
        self._parser = httptools.HttpResponseParser(self)
        self._bytes = 0
        self._opening = b""
        self.status = 0
        """0 until the head has come."""

    def feed(self, data: memoryview) -> bool:
        """Take what has come; returns whether the head is complete. Raises `ValueError` where it is no HTTP, or too large."""
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
        """Take the head's end."""
        status = self._parser.get_status_code()
        if status >= _FINAL_MIN and not self.status:
            self.status = status

    @property
    def opened(self) -> bool:
        """Whether the tunnel is open."""
        return self.status in _OK
