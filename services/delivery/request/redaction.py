"""Redaction: removes secrets that an endpoint repeats from its answer, before the answer is stored or shown.

transport → attempt_record, oauth2_client, sink_verification → [redaction] → ledger, registry, log

Law 1: pure. Nothing is kept of the answer to a delivered attempt, so only failures and the answers to a verification need it.
Law 2: a secret is found in each form in which servers repeat what they received: plain, as JSON, in a URL, in HTML, in base64 and
in hexadecimal digits. It is also found if the end of the kept text cuts it.
"""

import base64
import functools
import html
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from services.delivery.model import Secret
from services.delivery.request.credentials import AccessToken, Credential, Header, MutualTls, OAuth2, Plain, headers_of

MARK = "[secret]"
# A shorter string occurs in any text.
_CHARS_MIN = 4
# A header's value may be a scheme and a secret; a word of at least this length may be the secret.
_WORD_CHARS_MIN = 8
# The forms of this many secrets are cached.
_SECRETS_MAX = 128


def secrets_of(credential: Credential | None, signing: Iterable[Secret]) -> Iterator[str]:
    """Yield the secrets that an endpoint was sent and may repeat, except for OAuth2's access token (see `Answer.sent_secrets`)."""
    match credential:
        case Plain():
            yield credential.secret
            yield headers_of(credential)["authorization"].removeprefix("Basic ")
        case AccessToken():
            yield credential.token
        case Header():
            yield credential.value
            yield from (word for word in credential.value.split() if len(word) >= _WORD_CHARS_MIN)
        case OAuth2():
            yield credential.client_secret
        case MutualTls() | None:
            pass
    yield from (base64.b64encode(secret.key).decode() for secret in signing)


def redacted(text: str, secrets: Iterable[str], *, cut: bool = False) -> str:
    """Return a text with `MARK` in place of each secret; if the text is `cut`, also in place of a secret's beginning at its end.

    Secrets of fewer than four characters stay.
    """
    if not text:
        return text
    forms = sorted({form for secret in secrets if len(secret) >= _CHARS_MIN for form in _forms(secret)}, key=len, reverse=True)
    for form in forms:
        text = text.replace(form, MARK)
    if not cut:
        return text
    # The cut may also have split a character.
    stem = text.rstrip("\ufffd")
    begun = max((_begun(stem, form) for form in forms), default=0)
    return stem[: len(stem) - begun] + MARK if begun else text


@functools.lru_cache(_SECRETS_MAX)
def _forms(secret: str) -> frozenset[str]:
    raw, escaped = secret.encode(), html.escape(secret)
    texts = (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    return frozenset(
        {
            *texts,
            *(text.replace("/", "\\/") for text in texts),
            *(quote(secret, safe=""), quote(secret), quote_plus(secret)),
            *(escaped, escaped.replace("&#x27;", "&#39;"), html.escape(secret, quote=False)),
            # Without the padding, which differs if more bytes follow the secret.
            *(encoded(raw).rstrip(b"=").decode() for encoded in (base64.b64encode, base64.urlsafe_b64encode)),
            raw.hex(),
        }
    )


def _begun(text: str, form: str) -> int:
    """Return the length of the longest beginning of `form`, of at least four characters, that `text` ends with; 0 for none."""
    sizes = range(min(len(form) - 1, len(text)), _CHARS_MIN - 1, -1)
    return next((size for size in sizes if text.endswith(form[:size])), 0)
