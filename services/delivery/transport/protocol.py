"""Protocol: the interface through which every request to a sink leaves.

sender, oauth2_client, sinks → [protocol] → http, resolver, tls_contexts, pool, … → callback URL

Law 1: each `send` is answered exactly once, on the event loop and never within `send` or `withdraw`; neither raises.
Law 2: the transport follows no redirect, decompresses no answer, and reads no answer beyond its limit. It checks the sink's
address before each connection, whatever name led to the address.
"""

import asyncio
import enum
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

RESPONSE_BYTES_MAX = 64 * 1024
RESPONSE_BYTES_KEPT = 1024


class Outcome(enum.IntEnum):
    """How one attempt ended. The ledger stores these numbers; they equal those of the contract's `AttemptOutcome`."""

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
    """What one sink's TLS needs beyond the default; all PEM. Requests share a connection only if their `Tls` is equal."""

    ca_pem: bytes = b""
    """Authorities that may issue the sink's certificate, besides the public ones."""
    certificate_pem: bytes = b""
    """The client certificate, then the certificates that lead to its root."""
    key_pem: bytes = b""
    """The client certificate's private key, without a passphrase; empty if `certificate_pem` contains the key."""


class Request(NamedTuple):
    """One HTTP request; a POST by default."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"
    timeout_s: float | None = None
    """How long the request may take in all; None: the transport's own limit."""
    tls: Tls | None = None
    subscription_id: str = ""
    """The subscription that the request belongs to; `withdraw` finds the request by this id. Empty: no subscription."""
    owner: str = ""
    """The consumer's id, opaque here: owners share scarce resources fairly."""
    whole: bool = False
    """Whether the caller wants the answer's headers and body for any status, up to the limits."""
    may_begin: Callable[[], bool] | None = None
    """Called when the request is about to leave. While this returns False, the request waits and can be withdrawn. None: no condition."""


class Answer(NamedTuple):
    """How a request ended."""

    outcome: Outcome
    status: int
    """0 if there was no response."""
    error: str
    """A sentence; empty when delivered."""
    body: bytes
    """The beginning of the response's body, for failures only; for a `whole` request, all that the limit allows."""
    retry_after: str
    """The header of that name, as received or in seconds; empty if there was none."""
    headers: Mapping[str, str] = {}
    """For a `whole` request, the response's headers by lower-case name. If a header came more than once, the first value."""
    sent_secrets: tuple[str, ...] = ()
    """Secrets that the request carried, besides those in the subscription's settings; no log or listing may show them."""
    begun: bool = True
    """False only for a withdrawn request: no byte of it has left, so it does not count as an attempt."""


WITHDRAWN = Answer(Outcome.RESET, 0, "the request was withdrawn before it began", b"", "", begun=False)


class Transport(Protocol):
    """Sends requests."""

    def send(self, request: Request, done: Callable[[Answer], None]) -> None:
        """Begin to send; the transport calls `done` once with the answer."""
        ...

    def withdraw(self, subscription_id: str) -> None:
        """Answer a subscription's requests that have not begun with `WITHDRAWN`, and send none of them; the others go on."""
        ...

    def withdraw_all(self, owner: str = "") -> None:
        """Do the same for all subscriptions of an owner, or of all owners ("")."""
        ...


async def awaited_answer(send: Callable[[Callable[[Answer], None]], None]) -> Answer:
    """Call `send` with a callback, and return the answer that the callback gets; the transport's time limits bound the wait."""
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def done(given: Answer) -> None:
        # The waiting task may have been cancelled.
        if not answer.done():
            answer.set_result(given)

    send(done)
    return await answer
