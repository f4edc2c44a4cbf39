"""Signing: the headers by which a receiver knows that a webhook is ours and unchanged.

attempt → [signing] → transport

Law 1: pure.
Law 2: the bytes signed are the bytes sent.
Rule: Standard Webhooks 1.0.0: `{id}.{timestamp}.{body}`, HMAC-SHA256, all live secrets at once.
"""

import base64
import binascii
import functools
import hmac
from collections.abc import Iterable

from services.delivery.model import Secret

_KEYS_MAX = 4096
SECRET_PREFIX = "whsec_"  # noqa: S105 - the visible beginning of every secret, not one of them


def secret_key(secret: str) -> bytes:
    """Return the bytes behind a secret of the form ``whsec_`` + base64."""
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)


def signature(message_id: str, timestamp_s: int, body: bytes, secrets: Iterable[Secret], now_ms: int) -> str:
    """Return the value of `webhook-signature`: one ``v1`` entry for each secret that is live, separated by spaces."""
    start = f"{message_id}.{timestamp_s}.".encode()
    return " ".join([_v1(secret.key, start, body) for secret in secrets if secret.expires_ms is None or secret.expires_ms > now_ms])


def _v1(key: bytes, start: bytes, body: bytes) -> str:
    keyed = _keyed(key).copy()
    keyed.update(start)
    keyed.update(body)
    return "v1," + binascii.b2a_base64(keyed.digest(), newline=False).decode()


@functools.lru_cache(_KEYS_MAX)
def _keyed(key: bytes) -> hmac.HMAC:
    """Return HMAC-SHA256 that has taken its key in, to be copied: that takes longer than to sign a small body."""
    return hmac.new(key, digestmod="sha256")
