"""Signing secret: its text form in Standard Webhooks 1.0.0, ``whsec_`` and the padded standard base64 of 24 to 64 bytes.

validation, subscription_server → [signing_secret]

Law: pure, apart from the randomness of a new secret. No message repeats a secret.
"""

import base64
import binascii
import secrets

PREFIX = "whsec_"
BYTES_MIN = 24
BYTES_MAX = 64
BYTES_NEW = 32


def new_secret() -> str:
    """Return a new signing secret of 32 random bytes."""
    return PREFIX + base64.b64encode(secrets.token_bytes(BYTES_NEW)).decode()


def secret_problem(text: str) -> str | None:
    """Return what is wrong with a signing secret, as a predicate for the field's name; None if the secret is valid."""
    if not text.startswith(PREFIX):
        return f"must begin with {PREFIX}"
    encoded = text.removeprefix(PREFIX)
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return f"must be {PREFIX} followed by padded standard base64"
    if base64.b64encode(raw).decode() != encoded:
        return f"must be {PREFIX} followed by padded standard base64"
    if not BYTES_MIN <= len(raw) <= BYTES_MAX:
        return f"must encode {BYTES_MIN} to {BYTES_MAX} bytes; this one encodes {len(raw)}"
    return None
