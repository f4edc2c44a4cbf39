"""Exchange: one request and its answer on a libcurl handle, which is used again and again.

transport → sender → [exchange] → callback URL

Law 1: the socket is opened here, and only to an address that the policy allows.
Law 2: nothing is taken from the environment: no proxy, no cookie, no netrc; nothing is followed or unpacked.
Law 3: whatever libcurl reports becomes one `Outcome`, in a sentence that names no address.
"""

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pycurl

from services.delivery.model import Outcome
from services.delivery.transport import RESPONSE_BYTES_KEPT, RESPONSE_BYTES_MAX, Answer, Request

_OK = range(200, 300)
_IDLE_S = 30
# A name that moves on is followed at the latest then, even where its connections never rest.
_LIFETIME_S = 600
_PROTOCOLS = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS
# libcurl would add these by itself: it asks before it sends a large body, and says that it takes any answer.
_NOT_SENT = ("Expect:", "Accept:")
_REASON_CHARS_MAX = 200
_BREAK = re.compile("[\r\n\x00]")
# libcurl's own size of a buffer for sending, and its largest.
_UPLOAD_BYTES = 64 * 1024
_UPLOAD_BYTES_MAX = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for every exchange."""

    timeout_s: float
    """In all, unless the request says otherwise."""
    connect_timeout_s: float
    """Until the connection stands, TLS included."""
    first_byte_timeout_s: float
    """From the request's beginning until the answer's first line."""
    connections_max: int
    """Open at once, idle ones included."""
    host_connections_max: int
    """Under way at once to one host and port."""
    names_kept_s: float = 15.0
    """How long a name's addresses are used before it is looked up again."""


@dataclass(frozen=True, slots=True)
class Way:
    """How all requests leave."""

    why_not: Callable[[str], str | None]
    """Says why an address may not be dialled, None where it may."""
    roots_file: str
    """PEM: what certificates of sinks are issued by."""
    roots: bytes
    """What stands in it, for requests that trust others besides."""
    proxy: str
    """The operator's proxy, which is then all that is dialled; empty: none."""


@dataclass(slots=True, eq=False)
class Flight:
    """A request on its way."""

    request: Request
    done: Callable[[Answer], None]
    name: str = ""
    """The host's name; empty where the URL has an address."""
    port: int = 0
    addresses: tuple[str, ...] = ()
    """Where it may go to, in this order."""
    tried: int = 0
    """How many of them could not be reached."""
    deadline: float = 0.0
    """By the monotonic clock; 0 while it has not begun."""

    @property
    def host(self) -> tuple[str, int]:
        """What connections are counted by."""
        return (self.name or self.addresses[0], self.port)


class Exchange:
    """One handle with its callbacks. Belongs to the sender's thread."""

    __slots__ = (
        *(
            "_answer_begun",
            "_body",
            "_dialled",
            "_headers",
            "_kept_max",
            "_opened",
            "_pin",
            "_refused",
            "_size",
            "_timeout_ms",
            "_upload_bytes",
            "_url",
            "_way",
        ),
        *("began", "easy", "flight", "is_plain"),
    )

    def __init__(self, way: Way, limits: Limits, opened: Callable[[int], None]) -> None:
        """`opened` is told of each new connection's socket."""
        self._way = way
        self._opened = opened
        self.flight: Flight
        self.began = 0.0
        self.is_plain = True
        """Whether the handle may serve another request."""
        self._answer_begun = False
        self._body = bytearray()
        self._headers: dict[str, str] | None = None
        self._size = 0
        self._kept_max = RESPONSE_BYTES_KEPT
        self._refused = ""
        self._dialled = False
        self._url = self._pin = ""
        self._timeout_ms = 0
        self._upload_bytes = _UPLOAD_BYTES
        self.easy = easy = pycurl.Curl()
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROTOCOLS, _PROTOCOLS),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.PROXY, way.proxy),
            (pycurl.NOPROXY, ""),
            (pycurl.HTTPPROXYTUNNEL, int(bool(way.proxy))),
            (pycurl.NETRC, pycurl.NETRC_IGNORED),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.HTTP09_ALLOWED, 0),
            (pycurl.HTTP_CONTENT_DECODING, 0),
            (pycurl.PATH_AS_IS, 1),
            (pycurl.USERAGENT, ""),
            (pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2),
            (pycurl.SSL_VERIFYPEER, 1),
            (pycurl.SSL_VERIFYHOST, 2),
            (pycurl.CAINFO, way.roots_file),
            # libcurl is given addresses alone; a cache of them it would go through after every request.
            (pycurl.DNS_CACHE_TIMEOUT, 0),
            (pycurl.MAXAGE_CONN, _IDLE_S),
            (pycurl.MAXLIFETIME_CONN, _LIFETIME_S),
            (pycurl.CONNECTTIMEOUT_MS, int(limits.connect_timeout_s * 1000)),
            (pycurl.POST, 1),
            (pycurl.OPENSOCKETFUNCTION, self._open_socket),
            (pycurl.WRITEFUNCTION, self._take_body),
        ):
            easy.setopt(option, value)

    def begin(self, flight: Flight, now: float) -> None:
        """Set the handle up for a request; raises `ValueError` where it cannot be sent as it stands."""
        request, easy = flight.request, self.easy
        lines = [f"{name}: {value}" if value else f"{name};" for name, value in request.headers.items()]
        if not "".join(lines).isprintable() and _BREAK.search("".join(lines)):
            message = "a header of the request has a line break"
            raise ValueError(message)
        if request.url != self._url:
            easy.setopt(pycurl.URL, request.url)
            self._url = request.url
        address = flight.addresses[flight.tried]
        pin = f"::[{address}]:{flight.port}" if ":" in address else f"::{address}:{flight.port}"
        if pin != self._pin:
            easy.setopt(pycurl.CONNECT_TO, [pin])
            self._pin = pin
        timeout_ms = max(1, int((flight.deadline - now) * 1000))
        if timeout_ms != self._timeout_ms:
            easy.setopt(pycurl.TIMEOUT_MS, timeout_ms)
            self._timeout_ms = timeout_ms
        lines += _NOT_SENT
        if "content-type" not in request.headers:
            # libcurl would call the body a form.
            lines.append("Content-Type:")
        easy.setopt(pycurl.HTTPHEADER, lines)
        easy.setopt(pycurl.POSTFIELDS, request.body)
        # The whole request in one buffer: libcurl then goes on until the socket takes no more, of which the thread is told,
        # and leaves no rest of which it is not.
        buffer_bytes = min(_UPLOAD_BYTES_MAX, max(_UPLOAD_BYTES, 2 * len(request.body)))
        if buffer_bytes != self._upload_bytes:
            easy.setopt(pycurl.UPLOAD_BUFFERSIZE, buffer_bytes)
            self._upload_bytes = buffer_bytes
        self.flight, self.began, self._answer_begun = flight, now, False
        self._size, self._refused, self._dialled = 0, "", False
        if self._body:
            self._body = bytearray()

    def begin_special(self, flight: Flight, now: float) -> None:
        """Do what `begin` does for a request that is no plain POST; the handle serves no other one after it."""
        request, easy = flight.request, self.easy
        self.begin(flight, now)
        self.is_plain = False
        if request.method != "POST":
            if not request.body:
                easy.setopt(pycurl.HTTPGET, 1)
            easy.setopt(pycurl.CUSTOMREQUEST, request.method)
        if request.whole:
            self._kept_max = RESPONSE_BYTES_MAX
            self._headers = {}
            easy.setopt(pycurl.HEADERFUNCTION, self._take_header)
        if request.tls is None:
            return
        if request.tls.ca_pem:
            easy.setopt(pycurl.CAINFO_BLOB, self._way.roots + b"\n" + request.tls.ca_pem)
        if request.tls.certificate_pem:
            easy.setopt(pycurl.SSLCERT_BLOB, request.tls.certificate_pem)
            easy.setopt(pycurl.SSLKEY_BLOB, request.tls.key_pem or request.tls.certificate_pem)

    def has_begun(self) -> bool:
        """Say whether a connection was sought, or the request sent over a kept one; not so while it waits for one of all connections."""
        return self._dialled or self.easy.getinfo(pycurl.PRETRANSFER_TIME) > 0

    def has_answer_begun(self) -> bool:
        """Say whether the answer's first line has come; asked only while the exchange is under way."""
        self._answer_begun = self._answer_begun or self.easy.getinfo(pycurl.HEADER_SIZE) > 0
        return self._answer_begun

    # What libcurl calls

    def _open_socket(self, _purpose: int, address: Any) -> int:  # noqa: ANN401 - pycurl's own tuple
        # Behind a proxy the address of the sink was judged before, and the proxy is the operator's own.
        why = None if self._way.proxy else self._way.why_not(str(address.addr[0]))
        if why is not None:
            self._refused = why
            bad: int = pycurl.SOCKET_BAD
            return bad
        self._dialled = True
        made = socket.socket(address.family, address.socktype, address.protocol)
        made.setblocking(False)  # noqa: FBT003 - the standard library's signature
        number = made.detach()
        self._opened(number)
        return number

    def _take_body(self, data: bytes) -> int | None:
        self._size += len(data)
        room = self._kept_max - len(self._body)
        if room > 0:
            self._body += data[:room]
        # Any other number than that of the bytes ends the transfer.
        return None if self._size < RESPONSE_BYTES_MAX else 0

    def _take_header(self, line: bytes) -> None:
        if self._headers is not None:
            name, colon, value = line.decode("latin-1").partition(":")
            if line.startswith(b"HTTP/"):
                self._headers.clear()
            elif colon:
                self._headers.setdefault(name.strip().lower(), value.strip())

    # What came of it

    def answer(self, error: int, text: str) -> Answer:
        """Return the answer of an exchange that has ended; `error` is libcurl's number, 0 for none."""
        easy = self.easy
        status: int = easy.getinfo(pycurl.RESPONSE_CODE)
        headers = self._headers if self._headers is not None else {}
        if error == 0 or (error == pycurl.E_WRITE_ERROR and self._size >= RESPONSE_BYTES_MAX):
            retry_after_s = 0
            if status in _OK:
                body = bytes(self._body) if self.flight.request.whole else b""
                return Answer(Outcome.DELIVERED, status, "", body, "", headers)
            retry_after_s = easy.getinfo(pycurl.RETRY_AFTER)
            return Answer(
                Outcome.STATUS,
                status,
                f"the endpoint answered {status}",
                bytes(self._body),
                str(retry_after_s) if retry_after_s > 0 else "",
                headers,
            )
        outcome, sentence = self._failure(error, text)
        return Answer(outcome, 0, sentence, b"", "")

    def _failure(self, error: int, text: str) -> tuple[Outcome, str]:  # noqa: PLR0911 - one line for each class of failure
        if self._refused:
            return Outcome.BLOCKED, self._refused
        if error == pycurl.E_OPERATION_TIMEDOUT:
            return self._timeout()
        if self._way.proxy and self.easy.getinfo(pycurl.HTTP_CONNECTCODE) not in {0, *_OK}:
            return Outcome.CONNECT, "the operator's proxy refused to connect to the endpoint"
        if error in _CONNECT:
            return Outcome.CONNECT, "no connection to the endpoint could be made"
        if error in _CERTIFICATE and self.flight.request.tls is not None:
            return Outcome.TLS, "TLS failed: the client certificate and its key cannot be used; give both as PEM"
        # An alert may come after the handshake, as a refusal of the client's certificate does.
        if error in _TLS or (error == pycurl.E_RECV_ERROR and "alert" in text):
            return Outcome.TLS, f"TLS failed: {text[:_REASON_CHARS_MAX]}"
        broken = error in _BROKEN or (error == pycurl.E_RECV_ERROR and text.startswith(_RECEIVING))
        if broken and self.easy.getinfo(pycurl.RESPONSE_CODE) != _SWITCHING:
            return Outcome.RESET, "the connection broke before the answer was complete"
        return Outcome.PROTOCOL, f"the answer was not valid HTTP, or beyond its limits (libcurl error {error})"

    def _timeout(self) -> tuple[Outcome, str]:
        easy = self.easy
        if self._dialled and easy.getinfo(pycurl.CONNECT_TIME) == 0:
            return Outcome.CONNECT, "no connection to the endpoint within the time limit"
        if self._dialled and easy.getinfo(pycurl.APPCONNECT_TIME) == 0 and self._url.startswith("https"):
            return Outcome.TLS, "TLS failed: the handshake took too long"
        return Outcome.TIMEOUT, "no answer within the time limit"


def failed(outcome: Outcome, error: str) -> Answer:
    """Return the answer of a request that had none."""
    return Answer(outcome, 0, error, b"", "")


_CONNECT = frozenset({pycurl.E_COULDNT_CONNECT, pycurl.E_COULDNT_RESOLVE_PROXY})
_TLS = frozenset(
    {
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_INVALIDCERTSTATUS,
    }
)
_CERTIFICATE = frozenset({pycurl.E_SSL_CERTPROBLEM, pycurl.E_BAD_FUNCTION_ARGUMENT})
_BROKEN = frozenset({pycurl.E_SEND_ERROR, pycurl.E_GOT_NOTHING, pycurl.E_PARTIAL_FILE, pycurl.E_SEND_FAIL_REWIND})
# libcurl's error of receiving is also what it makes of an answer that it cannot read: only these words mean the connection.
_RECEIVING = ("Recv failure", "Send failure", "OpenSSL SSL_")
_SWITCHING = 101
