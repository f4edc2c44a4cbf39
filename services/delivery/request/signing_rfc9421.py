"""Signing, RFC 9421: an HTTP message signature over the request, for subscriptions that ask for it in addition.

request_builder → [signing_rfc9421] → transport

Law 1: pure.
Law 2: the signature covers what is sent: the method, the URL, the body through its digest, and the headers that define its meaning.
Rules: RFC 9421 (HTTP Message Signatures), RFC 9530 (`content-digest`), RFC 8941 (structured fields).
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.delivery.model import Secret
from services.delivery.request.signing import SigningKey

METHOD = "POST"
TAG = "hooktide"
_KEY_ID_BYTES = 8
_DEFAULT_PORTS = {"http": 80, "https": 443}
# The headers that are signed if the request has them. All `ce-` headers, which hold the event's attributes in binary mode, are signed too.
_COVERED = ("content-type", "webhook-id", "webhook-timestamp", "hooktide-subscription-id", "hooktide-replay-id")
_COVERED_PREFIX = "ce-"


class Signer(NamedTuple):
    """A key of one of the two algorithms, and its key id."""

    key: bytes | Ed25519PrivateKey
    key_id: str

    @property
    def algorithm(self) -> str:
        """The algorithm's name in the registry of RFC 9421."""
        return "hmac-sha256" if isinstance(self.key, bytes) else "ed25519"

    def sign(self, base: bytes) -> bytes:
        """Return the signature of a signature base."""
        return hmac.digest(self.key, base, "sha256") if isinstance(self.key, bytes) else self.key.sign(base)


def key_id(key: bytes) -> str:
    """Return the key id of a secret or a public key, from its bytes; the registry shows the owner the same id."""
    return hashlib.sha256(key).digest()[:_KEY_ID_BYTES].hex()


def signers(secrets: Iterable[Secret], keys: Iterable[SigningKey], now_ms: int) -> list[Signer]:
    """Return the present signers: the live keys, or the live secrets if no key is live."""
    live = [Signer(key.key, key.key_id) for key in keys if key.expires_ms is None or key.expires_ms > now_ms]
    if live:
        return live
    return [Signer(each.key, key_id(each.key)) for each in secrets if each.expires_ms is None or each.expires_ms > now_ms]


def message_signature(url: str, headers: Mapping[str, str], body: bytes, by: Sequence[Signer], created_s: int) -> dict[str, str]:
    """Return the headers `content-digest`, `signature-input` and `signature` of a request; no headers if `by` is empty.

    `headers` are the request's headers, with names in lower case and values as they are sent.
    """
    if not by:
        return {}
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
    components = [("@method", METHOD), ("@target-uri", target_uri(url)), ("content-digest", digest)]
    covered = (*_COVERED, *sorted(name for name in headers if name.startswith(_COVERED_PREFIX)))
    components += [(name, headers[name].strip()) for name in covered if name in headers]
    names = " ".join(f'"{name}"' for name, _ in components)
    inputs, signatures = [], []
    for number, signer in enumerate(by, 1):
        parameters = f'({names});created={created_s};keyid="{signer.key_id}";alg="{signer.algorithm}";tag="{TAG}"'
        signed = base64.b64encode(signer.sign(signature_base(components, parameters))).decode()
        inputs.append(f"sig{number}={parameters}")
        signatures.append(f"sig{number}=:{signed}:")
    return {"content-digest": digest, "signature-input": ", ".join(inputs), "signature": ", ".join(signatures)}


def signature_base(components: Iterable[tuple[str, str]], parameters: str) -> bytes:
    """Return the bytes to sign: a line for each component, then the parameters that list the components."""
    lines = [f'"{name}": {value}' for name, value in components]
    return "\n".join([*lines, f'"@signature-params": {parameters}']).encode("ascii")


def target_uri(url: str) -> str:
    """Return a URL as the receiver can rebuild it from the request: without the scheme's default port, and always with a path."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in {None, _DEFAULT_PORTS.get(parts.scheme)} else f":{parts.port}"
    query = f"?{parts.query}" if "?" in url else ""
    return f"{parts.scheme}://{host}{port}{parts.path or '/'}{query}"
