"""Pipeline: the steps from a request to its answer, the same for every route.

client → listener → [pipeline] → route → upstreams

In this order: request id, client address, the turn of a proxied client's network, header size, webhook loop, route, key, role, query, the
consumer's turn, handler. Each step after the client address may refuse. In every case the client gets an answer with the request id, a
refusal as problem+json, and the log gets one line.

Law: requests without a valid key are answered no faster than at a fixed rate for each client network. A request with a valid key never
waits because of them. Only the answer is delayed, after the key was looked up and proved wrong.
"""

import asyncio
import contextlib
import random
import re
import time
from dataclasses import dataclass
from urllib.parse import parse_qsl

import structlog
from aiohttp import web
from prometheus_client import Counter

from gateway.authentication import Authenticator, Caller
from gateway.listener import HttpLimits, connection_of
from gateway.problems import internal_fault, invalid_request
from gateway.responses import REQUEST_ID_HEADER, add_common_headers, problem_response
from gateway.router import Call, Route, Router
from services.runtime.authentication_throttle import AuthenticationThrottle
from services.runtime.clock import Clock
from services.runtime.errors import Failure, FieldError, Reason
from services.runtime.fair_semaphore import FairSemaphore, PermitRefusedError
from services.runtime.http.client_address import Client, TrustedProxies
from services.runtime.http.listener import HEAD_BYTES_MAX
from services.runtime.ids import new_id
from services.runtime.logs import logger

_held_back = Counter("hooktide_answers_held_back_total", "Delayed answers to requests without a valid API key.")

PARAMETERS_MAX = 32
_PERMIT_WITHIN_S = 10.0
# Every webhook carries this header, and no subscription can set it or leave it out.
WEBHOOK_HEADER = "hooktide-subscription-id"
# Refusals that reveal whether a guessed key or token was right. Other answers without a valid key reveal nothing, and cost less.
_KEY_REFUSALS = frozenset({Reason.KEY_REQUIRED, Reason.KEY_INVALID, Reason.VERIFICATION_NOT_FOUND})
# Failures of the system, which say nothing about the caller.
_SYSTEM_FAILURES = frozenset({Reason.INTERNAL, Reason.UNAVAILABLE, Reason.DEADLINE_EXCEEDED, Reason.STORAGE_FULL, Reason.OVERLOADED})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# An API key, service token, signing secret or private key in the wrong header must reach neither the log nor the answer.
_SECRET = re.compile(r"(?:hkt|hts|whsec|whsk)_", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """The limits that keep clients from taking each other's capacity."""

    proxies: TrustedProxies
    networks: FairSemaphore
    """The requests of clients behind a trusted proxy, by network: their connections are the proxy's and so not limited by network."""
    consumers: FairSemaphore
    """The requests with a valid key, by consumer."""
    refused_keys: AuthenticationThrottle
    """Refusals of wrong or missing keys and tokens."""
    anonymous: AuthenticationThrottle
    """All other answers to requests without a valid key."""


@dataclass(slots=True)
class _RequestState:
    """The facts about a request that its steps find out."""

    client: Client
    permits: contextlib.AsyncExitStack
    """The permits that the request holds; they are given back at its end."""
    route: str = "-"
    caller: Caller | None = None


class Pipeline:
    """Answers requests."""

    def __init__(self, router: Router, authenticator: Authenticator, client_limits: ClientLimits, clock: Clock, limits: HttpLimits) -> None:
        self._router = router
        self._authenticator = authenticator
        self.client_limits = client_limits
        """May be replaced; requests in flight keep their permits."""
        self._clock = clock
        self._limits = limits

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; return the response after it was sent."""
        started = time.monotonic()
        request_id = _request_id(request)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            # A permit lasts until the answer is sent, since the answer is in memory until the client reads it.
            async with contextlib.AsyncExitStack() as permits:
                state = _RequestState(self._client(request), permits)
                response = await self._answer(request, request_id, state)
                add_common_headers(response, request_id)
                await self._send(request, response)
            self._log(request, response, state, started)
        return response

    async def _answer(self, request: web.BaseRequest, request_id: str, state: _RequestState) -> web.Response:
        try:
            response = await self._handled(request, state)
            reason = None
        except Failure as failure:
            response = problem_response(failure, request_id)
            reason = failure.reason
        except Exception:  # noqa: BLE001 - the boundary: no unmapped exception may pass
            logger().exception("request.failed", route=state.route)
            return problem_response(internal_fault(), request_id)
        if state.caller is None and reason not in _SYSTEM_FAILURES:
            # A waiting refusal must not block a request with a correct key from the same address.
            await state.permits.aclose()
            limits = self.client_limits
            await self._hold_back(request, state.client, limits.refused_keys if reason in _KEY_REFUSALS else limits.anonymous)
        return response

    def _client(self, request: web.BaseRequest) -> Client:
        headers = request.headers
        peer = connection_of(request).peer
        return self.client_limits.proxies.client(peer, headers.getall("forwarded", []), headers.getall("x-forwarded-for", []))

    async def _hold_back(self, request: web.BaseRequest, client: Client, throttle: AuthenticationThrottle) -> None:
        """Wait until an answer to a request without a valid key may be sent."""
        now_s = self._clock.monotonic()
        delay_s = throttle.failed(client.network, now_s)
        if delay_s:
            _held_back.inc()
            # Without jitter, refusals that wait for the maximum would all end at one moment, and as many guesses would follow.
            await connection_of(request).hold_back(delay_s * random.uniform(1.0, 1.5))  # noqa: S311 - it spreads load
        elif throttle.is_throttled(client.network, now_s):
            logger().warning("requests.throttled", network=client.network, proxied=client.is_proxied)

    async def _handled(self, request: web.BaseRequest, state: _RequestState) -> web.Response:
        if state.client.is_proxied:
            await self._take_permit(state, self.client_limits.networks, state.client.network)
        _check_head(request)
        if WEBHOOK_HEADER in request.headers:
            # Refused whatever it asks for and whatever its key: the result of a webhook could cause further webhooks without end.
            raise Failure(
                Reason.LOOP_DETECTED, "This request is one of Hooktide's own webhooks; a sink must not be an address of Hooktide's API."
            )
        route, path = self._router.find(request.method, request.rel_url.raw_path)
        state.route = route.template
        if route.roles is None:
            return await route.handler(Call(request, path, {}, None))
        state.caller = caller = await self._authenticator.caller(_authorization(request))
        if caller.role not in route.roles:
            permitted = " or ".join(sorted(role.value for role in route.roles))
            raise Failure(
                Reason.ROLE_FORBIDDEN, f"A key of the role {caller.role.value} may not do this; use a key of the role {permitted}."
            )
        connection_of(request).show_known()
        query = _query(request.rel_url.raw_query_string, route)
        await self._take_permit(state, self.client_limits.consumers, caller.consumer_id or caller.key_id)
        return await route.handler(Call(request, path, query, caller))

    async def _take_permit(self, state: _RequestState, semaphore: FairSemaphore, owner: str) -> None:
        """Wait until an owner may have one more request in progress; raise `Failure` OVERLOADED if the wait is too long."""
        try:
            await state.permits.enter_async_context(semaphore.permit(owner, _PERMIT_WITHIN_S))
        except PermitRefusedError:
            message = "Too many of your requests are under way; send this one again after some of them are answered."
            raise Failure(Reason.OVERLOADED, message) from None

    async def _send(self, request: web.BaseRequest, response: web.Response) -> None:
        """Send the answer; close the connection if the client does not read it in time."""
        if not request.content.is_eof():
            # The rest of the body is useless, and the next request would begin only behind it.
            response.force_close()
        try:
            with connection_of(request).clients_turn():
                async with asyncio.timeout(self._limits.answer_s):
                    await response.prepare(request)
                    await response.write_eof()
        except ConnectionError:
            # The client has gone; the server notices by itself.
            return
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()

    def _log(self, request: web.BaseRequest, response: web.Response, state: _RequestState, started: float) -> None:
        # Never the path or the query: a client may have put its key there by mistake.
        fields: dict[str, object] = {
            "method": request.method,
            "route": state.route,
            "status": response.status,
            "duration_ms": round((time.monotonic() - started) * 1000, 1),
        }
        if state.caller is not None:
            fields |= {"key": state.caller.key_id, "consumer": state.caller.consumer_id or None}
        log = logger().debug if state.route in {"/healthz", "/readyz"} else logger().info
        log("request.done", **fields)


def _request_id(request: web.BaseRequest) -> str:
    """Return the client's own request id if it can be logged as it is, else a new one."""
    sent = request.headers.getall(REQUEST_ID_HEADER, [])
    if len(sent) == 1 and _REQUEST_ID.fullmatch(sent[0]) and _SECRET.search(sent[0]) is None:
        return sent[0]
    return new_id("req")


def _check_head(request: web.BaseRequest) -> None:
    """Raise `Failure` REQUEST_TOO_LARGE if all headers together are too large; the parser limits each by itself."""
    if sum(len(name) + len(value) for name, value in request.raw_headers) > HEAD_BYTES_MAX:
        raise Failure(
            Reason.REQUEST_TOO_LARGE, f"The headers are larger than {HEAD_BYTES_MAX} bytes in total; send fewer or shorter headers."
        )


def _authorization(request: web.BaseRequest) -> str:
    """Return the `Authorization` header, "" without one; raise `Failure` INVALID_ARGUMENT if there are several.

    A proxy in front may have checked another of the values than the gateway would use (RFC 9110, 5.3: the field is no list).
    """
    sent = request.headers.getall("authorization", [])
    if len(sent) > 1:
        raise invalid_request([FieldError("Authorization:", f"must be sent once; this request has {len(sent)}")])
    return sent[0] if sent else ""


def _query(raw: str, route: Route) -> dict[str, str]:
    """Return the query's parameters; refuse parameters that the route does not have, and repeated ones."""
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except UnicodeDecodeError:
        raise Failure(Reason.INVALID_ARGUMENT, "The query is not valid UTF-8; send it as percent-encoded UTF-8.") from None
    except ValueError:
        raise Failure(Reason.INVALID_ARGUMENT, f"The query has more than {PARAMETERS_MAX} parameters; send fewer.") from None
    known = ", ".join(sorted(route.parameters)) or "none"
    problems = [
        FieldError(f"?{name}", f"is not a parameter of this route; its parameters are: {known}")
        for name, _ in pairs
        if name not in route.parameters
    ]
    names = [name for name, _ in pairs]
    problems += [
        FieldError(f"?{name}", "is given more than once; give it once")
        for name in sorted(set(names) & route.parameters)
        if names.count(name) > 1
    ]
    if problems:
        raise invalid_request(problems)
    return dict(pairs)
