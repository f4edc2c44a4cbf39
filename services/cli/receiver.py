"""Receiver: a webhook endpoint that verifies each signature by the Standard Webhooks specification, version 1.0.0.

Written apart from the code that signs, so that the one proves the other.
"""

import base64
import binascii
import contextlib
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from services.runtime.admin import http_server

TOLERANCE_S = 300
BODY_BYTES_MAX = 8 * 1024 * 1024
_PREFIX = "whsec_"
_SECRET_BYTES_MIN, _SECRET_BYTES_MAX = 24, 64


class SignatureError(Exception):
    """A webhook is not to be trusted; the message says why."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """One request that came in. `problem` is None where its signature is good, else why it is not."""

    path: str
    id: str
    body: bytes
    headers: Mapping[str, str]
    problem: str | None

    @property
    def verified(self) -> bool:
        """Whether the signature is good."""
        return self.problem is None


def secret_bytes(secret: str) -> bytes:
    """Return the key in a secret ("whsec_" and base64 of 24 to 64 bytes); raises ValueError for anything else."""
    try:
        raw = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not secret.startswith(_PREFIX) or not _SECRET_BYTES_MIN <= len(raw) <= _SECRET_BYTES_MAX:
        message = f"a signing secret is {_PREFIX} and the base64 of {_SECRET_BYTES_MIN} to {_SECRET_BYTES_MAX} bytes"
        raise ValueError(message)
    return raw


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, *, now: float) -> None:
    """Return where one of the secrets has signed this request within five minutes of `now`; else raise `SignatureError`.

    `headers` by their names in lower case.
    """
    webhook_id, timestamp, signatures = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (webhook_id and timestamp and signatures):
        raise SignatureError("a webhook-* header is missing")
    if not (timestamp.isascii() and timestamp.isdigit()) or abs(now - int(timestamp)) > TOLERANCE_S:
        raise SignatureError(f"the timestamp {timestamp[:32]!r} is not within {TOLERANCE_S} s of now")
    content = b".".join((_raw(webhook_id), timestamp.encode(), body))
    expected = [base64.b64encode(hmac.digest(secret_bytes(secret), content, hashlib.sha256)) for secret in secrets]
    for entry in signatures.split(" "):
        version, _, given = entry.partition(",")
        # All are compared, in constant time, so that the time taken tells nothing.
        if version == "v1" and sum(hmac.compare_digest(_raw(given), digest) for digest in expected):
            return
    raise SignatureError("no signature was made with this secret" if len(secrets) == 1 else "no signature was made with these secrets")


def _raw(header: str) -> bytes:
    # As it came in: what is no UTF-8 was kept as surrogates.
    return header.encode(errors="surrogateescape")


Answer = Callable[[Webhook], int]


@contextlib.asynccontextmanager
async def receiving(secrets: Callable[[str], Sequence[str]], answer: Answer, *, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Receive webhooks on every path; yields the URL of the root, without a slash at its end.

    `secrets` returns those of a path (none: nothing can be verified). `answer` takes each webhook and returns the
    HTTP status to answer with.
    """

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        problem: str | None = None
        known = secrets(request.path)
        try:
            if not known:
                raise SignatureError("no secret is known here; give --secret")
            verify(known, headers, body, now=time.time())
        except SignatureError as error:
            problem = str(error)
        return web.Response(status=answer(Webhook(request.path, headers.get("webhook-id", ""), body, headers, problem)))

    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.add_routes([web.post("/{path:.*}", receive)])
    async with http_server(app, listen) as bound:
        yield f"http://{bound}"
