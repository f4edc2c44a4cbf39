"""Responses: makes the HTTP responses, with the headers that all of them share."""

from collections.abc import Mapping

import orjson
from aiohttp import web

from gateway.problems import problem_of
from services.runtime.errors import Failure

PROBLEM_CONTENT_TYPE = "application/problem+json"
REQUEST_ID_HEADER = "x-request-id"
_ALWAYS = {
    "server": "hooktide",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
NO_STORE = {"cache-control": "no-store"}
# The client itself may store the answer, and must revalidate it by its ETag before each use.
_REVALIDATED = {"cache-control": "private, no-cache"}


def json_response(body: Mapping[str, object], *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a JSON object on a line of its own. Caches may not store it unless `headers` permit that."""
    merged = {"content-type": "application/json", **NO_STORE, **(headers or {})}
    return web.Response(body=orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE), status=status, headers=merged)


def etag_response(body: Mapping[str, object], etag: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a resource with its ETag."""
    return json_response(body, status=status, headers={"etag": f'"{etag}"', **_REVALIDATED, **(headers or {})})


def not_modified(etag: str) -> web.Response:
    """Return 304: the client's copy is the current one."""
    return web.Response(status=304, headers={"etag": f'"{etag}"', **_REVALIDATED})


def no_content() -> web.Response:
    """Return 204: the request is done and there is no content."""
    return web.Response(status=204, headers=NO_STORE)


def page_response(items: list[dict[str, object]], next_page_token: str, members: Mapping[str, object] | None = None) -> web.Response:
    """Return one page of a list; `members` are what it tells besides its items."""
    return json_response({"items": items, "next_cursor": next_page_token or None, **(members or {})})


def problem_response(failure: Failure, request_id: str) -> web.Response:
    """Return a failure as `application/problem+json`."""
    problem = problem_of(failure, request_id)
    return json_response(problem.members, status=problem.status, headers={"content-type": PROBLEM_CONTENT_TYPE, **problem.headers})


def add_common_headers(response: web.StreamResponse, request_id: str) -> None:
    """Add the headers that all responses carry."""
    response.headers.update(_ALWAYS)
    response.headers[REQUEST_ID_HEADER] = request_id
