"""Signing key: an Ed25519 key's forms in Standard Webhooks 1.0.0, and the names of keys in HTTP message signatures.

server → [signing_key] → store

``whsk_`` is the private half, ``whpk_`` the public one, each with the padded standard base64 of 32 bytes. As brought from
elsewhere, the private half may also be followed by the public one, 64 bytes in all.
Law: pure, apart from the chance that a new key is made of. No message ever repeats a private key.
"""

import base64
import binascii
import hashlib
import secrets

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.subscription.rules.signing_secret import PREFIX as SECRET_PREFIX

PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
BYTES = 32
_ID_BYTES = 8


def new_private_key() -> str:
    """Return a new private key."""
    return PRIVATE_PREFIX + base64.b64encode(secrets.token_bytes(BYTES)).decode()


def private_key_problem(text: str) -> str | None:
    """Return what is wrong with a private key, in words that go on from its name; None where it is one."""
    if not text.startswith(PRIVATE_PREFIX):
        return f"must begin with {PRIVATE_PREFIX}"
    encoded = text.removeprefix(PRIVATE_PREFIX)
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return f"must be {PRIVATE_PREFIX} followed by padded standard base64"
    if base64.b64encode(raw).decode() != encoded:
        return f"must be {PRIVATE_PREFIX} followed by padded standard base64"
    if len(raw) not in {BYTES, 2 * BYTES}:
        return f"must hold {BYTES} bytes, or {2 * BYTES} with the public key behind them; this one holds {len(raw)}"
    if len(raw) > BYTES and raw[BYTES:] != _public_bytes(raw[:BYTES]):
        return "must hold the public key that belongs to the private one before it"
    return None


def short_private_key(text: str) -> str:
    """Return a well-formed private key in its form of 32 bytes."""
    return PRIVATE_PREFIX + base64.b64encode(_private_bytes(text)).decode()


def public_key(private_key: str) -> str:
    """Return the public half of a well-formed private key."""
    return PUBLIC_PREFIX + base64.b64encode(_public_bytes(_private_bytes(private_key))).decode()


def key_id(shown: str) -> str:
    """Return what names a secret ("whsec_…") or a public key ("whpk_…") in HTTP message signatures.

    It gives nothing away: both hold at least 24 random bytes, and the digest is cut.
    """
    prefix = SECRET_PREFIX if shown.startswith(SECRET_PREFIX) else PUBLIC_PREFIX
    return hashlib.sha256(base64.b64decode(shown.removeprefix(prefix))).digest()[:_ID_BYTES].hex()


def _private_bytes(text: str) -> bytes:
    return base64.b64decode(text.removeprefix(PRIVATE_PREFIX))[:BYTES]


def _public_bytes(private: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
