"""Request body: reads a request's body as a JSON object.

client → [request_body] → strict_json → translate

Law: reading stops as soon as a body exceeds the limit of bytes or the time allowed.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from aiohttp import HttpVersion11, web

from gateway.listener import connection_of
from gateway.problems import FailureWithHeaders
from gateway.strict_json import malformed, parse_object
from services.runtime.errors import Failure, Reason

JSON: Final = frozenset({"application/json"})
MERGE_PATCH: Final = frozenset({"application/merge-patch+json", "application/json"})


@dataclass(slots=True)
class BodyReader:
    """Reads bodies of at most `bytes_max` bytes that arrive within `timeout_s`; both may change at any time."""

    bytes_max: int
    timeout_s: float

    async def read(self, request: web.BaseRequest, media_types: Collection[str] = JSON, *, optional: bool = False) -> dict[str, object]:
        """Return the body's JSON object. If the body is `optional`, an absent body counts as an empty object.

        Raises `Failure`: MALFORMED_BODY, REQUEST_TOO_LARGE or UNSUPPORTED_MEDIA_TYPE.
        """
        raw = b""
        if request.body_exists:
            _check_media_type(request, media_types)
            raw = await self._received(request)
        if not raw:
            if optional:
                return {}
            raise malformed("The request has no body; send a JSON object.")
        return parse_object(raw)

    async def _received(self, request: web.BaseRequest) -> bytes:
        if (request.content_length or 0) > self.bytes_max:
            raise self._too_large()
        if request.version == HttpVersion11 and request.headers.get("expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # The count of sent bytes is reset, since the actual answer has not begun.
            request.writer.output_size = 0
        body = bytearray()
        try:
            with connection_of(request).clients_turn():
                async with asyncio.timeout(self.timeout_s):
                    while chunk := await request.content.readany():
                        body += chunk
                        if len(body) > self.bytes_max:
                            raise self._too_large()
        except TimeoutError:
            raise malformed(f"The body did not arrive completely within {self.timeout_s:g} seconds; send it faster.") from None
        except (web.RequestPayloadError, ConnectionError):
            raise malformed("The body ended too early, or its chunked encoding is not valid; send the complete body.") from None
        return bytes(body)

    def _too_large(self) -> Failure:
        return Failure(Reason.REQUEST_TOO_LARGE, f"The body is larger than the limit of {self.bytes_max} bytes; send a smaller one.")


def _check_media_type(request: web.BaseRequest, media_types: Collection[str]) -> None:
    accepted = ", ".join(sorted(media_types, reverse=True))
    charset = (request.charset or "utf-8").lower()
    encoding = request.headers.get("content-encoding", "identity").lower()
    if request.content_type.lower() in media_types and charset in {"utf-8", "us-ascii"} and encoding == "identity":
        return
    raise FailureWithHeaders(
        Reason.UNSUPPORTED_MEDIA_TYPE,
        f"Send the body as {accepted}, in UTF-8 and uncompressed.",
        headers={"accept-patch" if request.method == "PATCH" else "accept": accepted},
    )
