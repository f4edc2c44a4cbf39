"""Router: finds the route of a method and a path, and what the route demands before its handler runs.

Law: a route that is not listed does not exist, and every listed route names the roles that may use it.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from aiohttp import web

from gateway.authentication import Caller, Role
from gateway.problems import FailureWithHeaders
from services.runtime.errors import Failure, Reason

# The roles that may use a route. None instead of a set means anyone, without a key.
ADMINS = frozenset({Role.ADMIN})
OWNERS = frozenset({Role.ADMIN, Role.CONSUMER})
ANY_ROLE = frozenset(Role)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as a handler sees it. `authenticated` is None only on routes that need no key."""

    request: web.BaseRequest
    path: Mapping[str, str]
    query: Mapping[str, str]
    authenticated: Caller | None

    @property
    def caller(self) -> Caller:
        """The caller of a route that needs a key."""
        assert self.authenticated is not None  # noqa: S101 - the pipeline authenticates before it calls the handler
        return self.authenticated


Handler = Callable[[Call], Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path template, with names in braces for variable segments."""

    method: str
    template: str
    handler: Handler
    roles: frozenset[Role] | None
    parameters: frozenset[str] = field(default=frozenset())


class Router:
    """Finds routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._paths: dict[str, tuple[re.Pattern[str], dict[str, Route]]] = {}
        for route in routes:
            _, methods = self._paths.setdefault(route.template, (_pattern(route.template), {}))
            assert route.method not in methods, route  # noqa: S101 - a mistake in the tables of routes
            methods[route.method] = route
            if route.method == "GET":
                methods["HEAD"] = route

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """Return the route and the values of the names in its path.

        Raises `Failure` ROUTE_NOT_FOUND or METHOD_NOT_ALLOWED (with `Allow`).
        """
        for pattern, methods in self._paths.values():
            match = pattern.fullmatch(raw_path)
            if match is None:
                continue
            if method not in methods:
                allow = ", ".join(sorted(methods))
                raise FailureWithHeaders(Reason.METHOD_NOT_ALLOWED, f"This path supports only {allow}.", headers={"allow": allow})
            return methods[method], {name: _decoded(segment) for name, segment in match.groupdict().items()}
        raise _no_route()


def _pattern(template: str) -> re.Pattern[str]:
    # A segment is decoded after the match, so that an encoded slash stays within it.
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(template)))


def _decoded(segment: str) -> str:
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise _no_route() from None


def _no_route() -> Failure:
    return Failure(Reason.ROUTE_NOT_FOUND, "The API has no such path; all paths of the API begin with /v1/.")
