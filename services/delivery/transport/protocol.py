"""Transport: the Protocol that every request to a sink leaves by.

attempt → [protocol] → http, names, trust, pool, … → callback URL

Law 1: each `send` is answered exactly once, on the event loop and never within `send` or `withdraw`; neither raises.
Law 2: no redirect is followed, no answer is decompressed or read beyond its limit, and the address
dialled is checked, whatever name led to it.
"""

import enum
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

RESPONSE_BYTES_MAX = 64 * 1024
RESPONSE_BYTES_KEPT = 1024


class Outcome(enum.IntEnum):
    """How one attempt ended; the numbers are stored and are those of the contract's `AttemptOutcome`."""

    DELIVERED = 1
    STATUS = 2
    DNS = 3
    CONNECT = 4
    TLS = 5
    TIMEOUT = 6
    RESET = 7
    BLOCKED = 8
    PROTOCOL = 9
    CREDENTIAL = 10


class Tls(NamedTuple):
    """What one sink's TLS needs beyond the usual; all PEM. Connections are shared only by requests of the same."""

    ca_pem: bytes = b""
    """Certificates that the sink's may be issued by, besides the public ones."""
    certificate_pem: bytes = b""
    """The client certificate, then those that lead to its root."""
    key_pem: bytes = b""
    """Its private key, without a passphrase; empty where it stands with the certificate."""


class Request(NamedTuple):
    """A POST, unless it says otherwise."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"
    timeout_s: float | None = None
    """How long it may take in all; None: as long as the transport's own limit."""
    tls: Tls | None = None
    subscription_id: str = ""
    """Whose it is, by which it may be withdrawn; empty: nobody's."""
    owner: str = ""
    """For whom it is made: what is scarce is shared fairly by owner. Opaque; a consumer's id."""
    whole: bool = False
    """Whether the answer's headers and body are wanted whatever its status, up to the limits."""
    may_begin: Callable[[], bool] | None = None
    """Asked at the moment it would leave; while the answer is False it waits, and may be withdrawn. None: it may."""


class Answer(NamedTuple):
    """What came of it."""

    outcome: Outcome
    status: int
    """0 where there was none."""
    error: str
    """In a sentence; empty when delivered."""
    body: bytes
    """The beginning of the answer's body, of failures only; of a `whole` request as much as may be read."""
    retry_after: str
    """The header of that name, as it came or in seconds; empty where there was none."""
    headers: Mapping[str, str] = {}
    """Of a `whole` request: the answer's headers by their names in lower case; of one that came twice the first."""
    sent_secrets: tuple[str, ...] = ()
    """What the request carried that nobody is to read, besides what the subscription's terms hold."""
    begun: bool = True
    """False where nothing of the request has left: it may as well not have been made."""


WITHDRAWN = Answer(Outcome.RESET, 0, "the request was withdrawn before it began", b"", "", begun=False)


class Transport(Protocol):
    """Sends requests."""

    def send(self, request: Request, done: Callable[[Answer], None]) -> None:
        """Begin to send; `done` is called once with the answer."""
        ...

    def withdraw(self, subscription_id: str) -> None:
        """Begin none of a subscription's requests that have not begun, but answer them with `WITHDRAWN`; the others go on."""
        ...
