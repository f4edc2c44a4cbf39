"""REST client: the command line's calls to the gateway."""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from services.cli.errors import CommandError
from services.cli.tls import http_tls

TIMEOUT_S = 15.0


class RestClient:
    """Calls to one REST API with one key. Every error is a `CommandError` of one line."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the answer's JSON object, empty if the answer has no JSON object."""
        try:
            async with self._session.request(method, f"{self._url}{path}", json=body, allow_redirects=False) as response:
                answer = await response.json(content_type=None) if await response.read() else {}
                status = response.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            message = f"no answer from {self._url} ({reason_of(error)}); check that `hooktide up` runs, or name another API with --api"
            raise CommandError(message) from error
        if not isinstance(answer, dict):
            answer = {}
        if status >= 300:  # noqa: PLR2004 - every status that is not a success
            raise CommandError(_problem(status, answer))
        return answer


@contextlib.asynccontextmanager
async def rest_client(url: str, key: str, ca: Path | None = None) -> AsyncIterator[RestClient]:
    """Open a client for the API at `url`; it trusts the authorities in the file `ca`, or the public ones without `ca`."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    connector = aiohttp.TCPConnector(ssl=http_tls(ca)) if url.startswith("https:") else None
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}, timeout=timeout, connector=connector) as session:
        yield RestClient(session, url)


def reason_of(error: Exception) -> str:
    """Return a short reason why there was no answer."""
    if isinstance(error, aiohttp.ClientSSLError):
        return _tls_reason(error)
    match error:
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int(number))) if number > 0:
            return os.strerror(number)
        case aiohttp.ClientResponseError():
            return "the server does not speak HTTP"
        case TimeoutError():
            return "the answer took too long"
        case ValueError():
            return "the answer is not from Hooktide"
    return str(error) or type(error).__name__


def _tls_reason(error: aiohttp.ClientSSLError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the server's certificate is not trusted; name its certificate authority with --ca"
    return "TLS failed; check that the server speaks https and whether it needs a client certificate"


def _where(error: Mapping[str, Any]) -> str:
    """Return which part of the request an error is about: a place in the body, a parameter, or a header."""
    return str(error.get("pointer") or error.get("parameter") or error.get("header") or "request")


def _problem(status: int, answer: Mapping[str, Any]) -> str:
    """Return a problem+json answer as one line."""
    errors = answer.get("errors") or ()
    fields = "; ".join(f"{_where(error)}: {error.get('detail')}" for error in errors if isinstance(error, dict))
    text = fields or answer.get("detail") or answer.get("title") or "no reason given"
    return f"{text} ({answer.get('reason') or 'HTTP'} {status})"
