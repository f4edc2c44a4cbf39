"""Signing: the `webhook-signature` header, which proves to a receiver that Hooktide sent the webhook and nothing changed it.

request_builder → [signing] → transport

Law 1: pure.
Law 2: the bytes signed are the bytes sent.
Rule: Standard Webhooks 1.0.0: `{id}.{timestamp}.{body}`, HMAC-SHA256 and Ed25519, all live secrets and keys at once.
"""

import base64
import binascii
import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.delivery.model import Secret

_KEYS_MAX = 4096
_BLOCK_BYTES = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
SECRET_PREFIX = "whsec_"  # noqa: S105 - the visible beginning of every secret, not one of them
PRIVATE_KEY_PREFIX = "whsk_"


class SigningKey(NamedTuple):
    """An Ed25519 key, its key id in HTTP message signatures, and when it expires (ms since 1970; None: never)."""

    key: Ed25519PrivateKey
    key_id: str
    expires_ms: int | None


def private_key(text: str) -> Ed25519PrivateKey:
    """Return the key in a text of the form ``whsk_`` + base64 of its 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text.removeprefix(PRIVATE_KEY_PREFIX), validate=True))


def secret_bytes(secret: str) -> bytes:
    """Return the bytes of a secret of the form ``whsec_`` + base64."""
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)


def signature(message_id: str, timestamp_s: int, body: bytes, secrets: Iterable[Secret], now_ms: int) -> str:
    """Return the value of `webhook-signature`: one ``v1`` entry for each secret that is live, separated by spaces."""
    content = _signed(message_id, timestamp_s, body)
    return " ".join([_v1(secret.key, content) for secret in secrets if secret.expires_ms is None or secret.expires_ms > now_ms])


def signature_v1a(message_id: str, timestamp_s: int, body: bytes, keys: Iterable[SigningKey], now_ms: int) -> str:
    """Return one ``v1a`` entry for each key that is live, separated by spaces; "" if no key is live."""
    content = _signed(message_id, timestamp_s, body)
    return " ".join(
        "v1a," + base64.b64encode(key.key.sign(content)).decode() for key in keys if key.expires_ms is None or key.expires_ms > now_ms
    )


def signatures(message_id: str, timestamp_s: int, body: bytes, secrets: Iterable[Secret], keys: Sequence[SigningKey], now_ms: int) -> str:
    """Return the value of `webhook-signature`, with entries by the secrets and the keys of a subscription's signature schemes.

    The ``v1`` entries come first, because every library can verify them.
    """
    symmetric = signature(message_id, timestamp_s, body, secrets, now_ms)
    if not keys:
        return symmetric
    asymmetric = signature_v1a(message_id, timestamp_s, body, keys, now_ms)
    return f"{symmetric} {asymmetric}".strip()


def _signed(message_id: str, timestamp_s: int, body: bytes) -> bytes:
    return b"%b.%d.%b" % (message_id.encode(), timestamp_s, body)


def _v1(key: bytes, content: bytes) -> str:
    inner, outer = _keyed(key)
    within = inner.copy()
    within.update(content)
    around = outer.copy()
    around.update(within.digest())
    return "v1," + binascii.b2a_base64(around.digest(), newline=False).decode()


@functools.lru_cache(_KEYS_MAX)
def _keyed(key: bytes) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """Return the inner and outer hash of HMAC-SHA256 (RFC 2104) after the key, for copying.

    Hashing the key again would take longer than signing a small body does, and so would copying an `hmac.HMAC`.
    """
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(block.translate(_INNER)), hashlib.sha256(block.translate(_OUTER))
