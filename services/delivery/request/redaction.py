"""Redaction: what an endpoint repeats of the secrets that it was sent, taken out of its words before they are kept.

transport → attempt → [redaction] → ledger

Law 1: pure, and called for failures alone: nothing is kept of an answer that was a success.
Law 2: a secret is known in the forms in which servers show what they were sent: as it is, as JSON, in a URL, in HTML, in base64
and in hexadecimal digits; also where the end of what is kept cuts it.
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
# What is shorter stands in any text.
_CHARS_MIN = 4
# A header's value may be a scheme and a secret; a word of it that is as long as this may be the secret.
_WORD_CHARS_MIN = 8
# Of so many the forms are remembered.
_SECRETS_MAX = 128


def secrets_of(credential: Credential | None, signing: Iterable[Secret]) -> Iterator[str]:
    """Yield what an endpoint knows and nobody is to read where it repeats it. A token of OAuth2 is not among it."""
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
    """Return a text with a mark in place of each secret; where the text is `cut`, also of one that its end cuts.

    A secret of less than four characters is not looked for.
    """
    if not text:
        return text
    forms = sorted({form for secret in secrets if len(secret) >= _CHARS_MIN for form in _forms(secret)}, key=len, reverse=True)
    for form in forms:
        text = text.replace(form, MARK)
    if not cut:
        return text
    # The end may also cut a character.
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
            # Without what pads them: it is of another length where more follows.
            *(encoded(raw).rstrip(b"=").decode() for encoded in (base64.b64encode, base64.urlsafe_b64encode)),
            raw.hex(),
        }
    )


def _begun(text: str, form: str) -> int:
    """Return how many characters of a form's beginning a text ends with."""
    sizes = range(min(len(form) - 1, len(text)), _CHARS_MIN - 1, -1)
    return next((size for size in sizes if text.endswith(form[:size])), 0)
