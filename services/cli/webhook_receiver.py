"""Webhook receiver: a webhook sink that verifies each signature by the Standard Webhooks specification, version 1.0.0.

A signing secret (``whsec_``) verifies signatures of the scheme ``v1``, HMAC-SHA256; a public key (``whpk_``) verifies those of ``v1a``,
Ed25519. The receiver is written independently of the code that signs, so that each tests the other.
"""

import base64
import binascii
import contextlib
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.runtime.http.admin import http_server
from services.runtime.http.connection_limits import ConnectionLimits

TOLERANCE_S = 300
# The only client is one delivery service, and its settings limit how many connections it opens.
_LIMITS = ConnectionLimits(network_connections_max=4096, network_connections_per_second=100_000.0)
BODY_BYTES_MAX = 8 * 1024 * 1024
Scheme = Literal["v1", "v1a"]
_PREFIX = "whsec_"
_PUBLIC_PREFIX = "whpk_"
_PUBLIC_BYTES = 32
_SECRET_BYTES_MIN, _SECRET_BYTES_MAX = 24, 64


class SignatureError(Exception):
    """A webhook cannot be trusted; the message says why."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """One received request. `problem` is None if its signatures are good, else it says why they are not.

    `schemes` are the schemes by which it was verified. `missing` are the schemes for which a key is known and no signature arrived.
    """

    path: str
    id: str
    body: bytes
    headers: Mapping[str, str]
    problem: str | None
    schemes: tuple[Scheme, ...] = ()
    missing: tuple[Scheme, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether the signature is good."""
        return self.problem is None


def key_problem(key: str) -> str | None:
    """Return what is wrong with a signing secret or a public key, None if it is valid."""
    try:
        _ = public_key(key) if key.startswith(_PUBLIC_PREFIX) else secret_bytes(key)
    except ValueError as error:
        return str(error)
    return None


def public_key(key: str) -> Ed25519PublicKey:
    """Return the key in a text ("whpk_" and base64 of 32 bytes); raises ValueError for anything else."""
    try:
        raw = base64.b64decode(key.removeprefix(_PUBLIC_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not key.startswith(_PUBLIC_PREFIX) or len(raw) != _PUBLIC_BYTES:
        message = f"a public key must be {_PUBLIC_PREFIX} and the base64 of {_PUBLIC_BYTES} bytes"
        raise ValueError(message)
    return Ed25519PublicKey.from_public_bytes(raw)


def secret_bytes(secret: str) -> bytes:
    """Return the key in a secret ("whsec_" and base64 of 24 to 64 bytes); raises ValueError for anything else."""
    try:
        raw = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not secret.startswith(_PREFIX) or not _SECRET_BYTES_MIN <= len(raw) <= _SECRET_BYTES_MAX:
        message = f"a signing secret must be {_PREFIX} and the base64 of {_SECRET_BYTES_MIN} to {_SECRET_BYTES_MAX} bytes"
        raise ValueError(message)
    return raw


def verify(keys: Sequence[str], headers: Mapping[str, str], body: bytes, *, now: float) -> tuple[Scheme, ...]:
    """Verify a request by the keys, and its time to within five minutes of `now`; return the schemes by which it was verified.

    At least one scheme must have both a key and a signature in the request, and every such scheme must verify. The names in `headers` are
    in lower case. Raises `SignatureError`.
    """
    webhook_id, timestamp, signatures = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if absent := [name for name in ("id", "timestamp", "signature") if not headers.get(f"webhook-{name}")]:
        raise SignatureError(f"the webhook has no header {' and no header '.join(f'webhook-{name}' for name in absent)}")
    if not (timestamp.isascii() and timestamp.isdigit()) or abs(now - int(timestamp)) > TOLERANCE_S:
        raise SignatureError(f"the timestamp {timestamp[:32]!r} is not within {TOLERANCE_S} s of now")
    content = b".".join((_raw(webhook_id), timestamp.encode(), body))
    came = _signatures(signatures)
    known = _by_scheme(keys)
    expected = [scheme for scheme in known if came[scheme]]
    if not expected:
        raise SignatureError(f"the webhook has no {' and no '.join(known)} signature; {_advice(came)}")
    judge = {"v1": _is_good_v1, "v1a": _is_good_v1a}
    for scheme in expected:
        if not judge[scheme](known[scheme], content, came[scheme]):
            key = "secret" if scheme == "v1" else "public key"
            raise SignatureError(
                f"the {scheme} signature does not match {f'this {key}' if len(known[scheme]) == 1 else f'any of these {key}s'}"
            )
    return tuple(expected)


def _signatures(header: str) -> dict[Scheme, list[str]]:
    """Return the signatures of a header `webhook-signature` by their schemes."""
    came: dict[Scheme, list[str]] = {"v1": [], "v1a": []}
    for entry in header.split(" "):
        version, _, given = entry.partition(",")
        if version in came:
            came["v1a" if version == "v1a" else "v1"].append(given)
    return came


def _by_scheme(keys: Sequence[str]) -> dict[Scheme, list[str]]:
    secrets, publics = [key for key in keys if not key.startswith(_PUBLIC_PREFIX)], [key for key in keys if key.startswith(_PUBLIC_PREFIX)]
    by_scheme: dict[Scheme, list[str]] = {"v1": secrets, "v1a": publics}
    return {scheme: found for scheme, found in by_scheme.items() if found}


def _advice(came: Mapping[Scheme, Sequence[str]]) -> str:
    if came["v1"]:
        return f"it has a v1 signature, so give its signing secret ({_PREFIX}…)"
    if came["v1a"]:
        return f"it has a v1a signature, so give its public key ({_PUBLIC_PREFIX}…)"
    return "it has no other supported signature"


def _is_good_v1(secrets: Sequence[str], content: bytes, came: Sequence[str]) -> bool:
    expected = [base64.b64encode(hmac.digest(secret_bytes(secret), content, hashlib.sha256)) for secret in secrets]
    # All are compared, in constant time, so that the time taken reveals nothing.
    return sum(hmac.compare_digest(_raw(given), digest) for given in came for digest in expected) > 0


def _is_good_v1a(keys: Sequence[str], content: bytes, came: Sequence[str]) -> bool:
    return any(_is_by(public_key(key), content, given) for key in keys for given in came)


def _is_by(key: Ed25519PublicKey, content: bytes, given: str) -> bool:
    try:
        key.verify(base64.b64decode(_raw(given), validate=True), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _raw(header: str) -> bytes:
    # Restores the received bytes: bytes that are not UTF-8 were kept as surrogates.
    return header.encode(errors="surrogateescape")


Answer = Callable[[Webhook], int]


@contextlib.asynccontextmanager
async def receiving(keys: Callable[[str], Sequence[str]], answer: Answer, *, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Receive webhooks on every path; yields the URL of the root, without a slash at its end.

    `keys` returns the secrets and public keys of a path; without any, nothing can be verified. `answer` takes each webhook and returns the
    HTTP status of the answer.
    """

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        problem: str | None = None
        schemes: tuple[Scheme, ...] = ()
        known = keys(request.path)
        try:
            if not known:
                raise SignatureError("there is no secret to verify it with; give --secret")
            schemes = verify(known, headers, body, now=time.time())
        except SignatureError as error:
            problem = str(error)
        came = _signatures(headers.get("webhook-signature", ""))
        missing = tuple(scheme for scheme in _by_scheme(known) if not came[scheme])
        webhook = Webhook(request.path, headers.get("webhook-id", ""), body, headers, problem, schemes, missing)
        return web.Response(status=answer(webhook))

    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.add_routes([web.post("/{path:.*}", receive)])
    async with http_server(app, listen, _LIMITS) as bound:
        yield f"http://{bound}"
