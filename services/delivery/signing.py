"""Signing: the headers by which a receiver knows that a webhook is ours and unchanged.

attempt → [signing] → transport

Law 1: pure.
Law 2: the bytes signed are the bytes sent.
Rule: Standard Webhooks 1.0.0: `{id}.{timestamp}.{body}`, HMAC-SHA256, all live secrets at once.
"""

import base64
import hmac
from collections.abc import Iterable

from services.delivery.model import Secret

SECRET_PREFIX = "whsec_"  # noqa: S105 - the visible beginning of every secret, not one of them


def secret_key(secret: str) -> bytes:
    """Return the bytes behind a secret of the form ``whsec_`` + base64."""
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)


def signature(message_id: str, timestamp_s: int, body: bytes, secrets: Iterable[Secret], now_ms: int) -> str:
    """Return the value of `webhook-signature`: one ``v1`` entry for each secret that is live, separated by spaces."""
    content = b"%b.%d.%b" % (message_id.encode(), timestamp_s, body)
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(secret.key, content, "sha256")).decode()
        for secret in secrets
        if secret.expires_ms is None or secret.expires_ms > now_ms
    )
