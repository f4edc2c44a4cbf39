"""Signing key: the text forms of an Ed25519 key in Standard Webhooks 1.0.0, and the key ids in HTTP message signatures.

subscription_server, validation, subscriptions, wire_settings → [signing_key]

``whsk_`` begins the private half and ``whpk_`` the public half; each holds the padded standard base64 of 32 bytes. A private key that
the caller brings may also hold the public half after the private half, 64 bytes in all.
Law: pure, apart from the randomness of a new key. No message repeats a private key.
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
    """Return what is wrong with a private key, as a predicate for the field's name; None if the key is valid."""
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
        return f"must encode {BYTES} bytes, or {2 * BYTES} bytes with the public key after the private key; this one encodes {len(raw)}"
    if len(raw) > BYTES and raw[BYTES:] != _public_bytes(raw[:BYTES]):
        return "must end with the public key of the private key that it begins with"
    return None


def short_private_key(text: str) -> str:
    """Return a well-formed private key in its form of 32 bytes."""
    return PRIVATE_PREFIX + base64.b64encode(_private_bytes(text)).decode()


def public_key(private_key: str) -> str:
    """Return the public half of a well-formed private key."""
    return PUBLIC_PREFIX + base64.b64encode(_public_bytes(_private_bytes(private_key))).decode()


def key_id(shown: str) -> str:
    """Return the key id of a secret ("whsec_…") or a public key ("whpk_…") for HTTP message signatures.

    The id reveals nothing: a secret or key holds at least 24 random bytes, and the id is a truncated digest.
    """
    prefix = SECRET_PREFIX if shown.startswith(SECRET_PREFIX) else PUBLIC_PREFIX
    return hashlib.sha256(base64.b64decode(shown.removeprefix(prefix))).digest()[:_ID_BYTES].hex()


def _private_bytes(text: str) -> bytes:
    return base64.b64decode(text.removeprefix(PRIVATE_PREFIX))[:BYTES]


def _public_bytes(private: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
