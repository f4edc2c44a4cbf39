"""Bodies: a request's body as a JSON object, or a failure that says where it is none.

client → [bodies] → translate → service

Law 1: nothing is buffered beyond the limit, nothing waited for beyond the time allowed.
Law 2: what readers could understand in two ways is refused: duplicate names, numbers that JSON does not have,
lone surrogates, other encodings than UTF-8.
Law 3: depth is measured before anything recurses.
"""

import asyncio
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NoReturn

from aiohttp import HttpVersion11, web

from gateway.problems import Refusal
from services.runtime.errors import Failure, FieldError, Reason

DEPTH_MAX = 64
JSON: Final = frozenset({"application/json"})
MERGE_PATCH: Final = frozenset({"application/merge-patch+json", "application/json"})

# A string, complete or cut off at the end: it always matches where a quotation mark stands, so the scan is linear.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
# Each opening bracket becomes 2 and each closing one 0, so that one less is its step in depth.
_STEPS = bytes.maketrans(b"[{]}", bytes((2, 2, 0, 0)))
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Bodies:
    """Reads bodies of at most `bytes_max` bytes that arrive within `timeout_s`."""

    bytes_max: int
    timeout_s: float

    async def read(self, request: web.BaseRequest, media_types: Collection[str] = JSON, *, optional: bool = False) -> dict[str, object]:
        """Return the JSON object that is the body; where it is `optional`, no body is an empty object.

        Raises `Failure`: MALFORMED_BODY, REQUEST_TOO_LARGE or UNSUPPORTED_MEDIA_TYPE.
        """
        raw = b""
        if request.body_exists:
            _check_media_type(request, media_types)
            raw = await self._received(request)
        if not raw:
            if optional:
                return {}
            raise _malformed("The request has no body; send a JSON object.")
        return parse_object(raw)

    async def _received(self, request: web.BaseRequest) -> bytes:
        if (request.content_length or 0) > self.bytes_max:
            raise self._too_large()
        if request.version == HttpVersion11 and request.headers.get("expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # The answer proper has not begun.
            request.writer.output_size = 0
        body = bytearray()
        try:
            async with asyncio.timeout(self.timeout_s):
                while chunk := await request.content.readany():
                    body += chunk
                    if len(body) > self.bytes_max:
                        raise self._too_large()
        except TimeoutError:
            raise _malformed(f"The body had not arrived in full after {self.timeout_s:g} seconds; send it faster.") from None
        except (web.RequestPayloadError, ConnectionError):
            raise _malformed("The body ended too early, or its chunks are not those of HTTP.") from None
        return bytes(body)

    def _too_large(self) -> Failure:
        return Failure(Reason.REQUEST_TOO_LARGE, f"The body is larger than the limit of {self.bytes_max} bytes; send less.")


def parse_object(raw: bytes) -> dict[str, object]:
    """Return the JSON object that `raw` is; raise `Failure` MALFORMED_BODY, saying where, for anything else."""
    if _depth(raw) > DEPTH_MAX:
        raise _malformed(f"The body is nested deeper than {DEPTH_MAX} levels.")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _malformed(f"The body is not UTF-8: byte {error.start} begins no character.") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise _malformed(f"The body is no JSON: line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except ValueError:
        # The interpreter converts integers of a few thousand digits only.
        raise _malformed("The body holds a number of too many digits.") from None
    if not isinstance(value, dict):
        raise _malformed("The body must be a JSON object.")
    _refuse_surrogates(value)
    return value


def _depth(raw: bytes) -> int:
    """Return the depth of nesting; of what is no JSON, at least the depth up to where a parser would stop."""
    steps = _STRING.sub(b"", raw).translate(_STEPS, _NO_BRACKETS)
    return max(itertools.accumulate(map((-1).__add__, steps)), default=0)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _malformed(f"An object of the body has the member {_shown(twice)} twice.")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise _malformed(f"The body holds {name}, which JSON does not have.")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _malformed(f"The body holds the number {_shown(digits)}, which is out of range.")
    return number


def _refuse_surrogates(body: dict[str, object]) -> None:
    rest: list[tuple[str, object]] = [("", body)]
    while rest:
        pointer, value = rest.pop()
        if isinstance(value, str) and _SURROGATE.search(value):
            problem = FieldError(pointer, "holds half of a surrogate pair")
            raise _malformed(f"The text at {_shown(pointer)} holds half of a surrogate pair.", problem)
        if isinstance(value, dict):
            for name, member in value.items():
                if _SURROGATE.search(name):
                    raise _malformed(f"The member {_shown(name)} has half of a surrogate pair in its name.")
                rest.append((f"{pointer}/{pointer_token(name)}", member))
        elif isinstance(value, list):
            rest += [(f"{pointer}/{index}", item) for index, item in enumerate(value)]


def pointer_token(name: str) -> str:
    """Return a member's name as it stands in a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _check_media_type(request: web.BaseRequest, media_types: Collection[str]) -> None:
    accepted = ", ".join(sorted(media_types, reverse=True))
    charset = (request.charset or "utf-8").lower()
    encoding = request.headers.get("content-encoding", "identity").lower()
    if request.content_type in media_types and charset in {"utf-8", "us-ascii"} and encoding == "identity":
        return
    raise Refusal(
        Reason.UNSUPPORTED_MEDIA_TYPE,
        f"Send the body as {accepted}, in UTF-8 and uncompressed.",
        headers={"accept-patch" if request.method == "PATCH" else "accept": accepted},
    )


def _shown(text: str) -> str:
    """Return a text of the client's as a sentence may show it: ASCII, and short."""
    return json.dumps(text if len(text) <= DEPTH_MAX else f"{text[:DEPTH_MAX]}…")


def _malformed(message: str, *fields: FieldError) -> Failure:
    return Failure(Reason.MALFORMED_BODY, message, fields=fields)
