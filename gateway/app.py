"""App: puts the gateway together.

settings → [app] → listener → pipeline → routes → upstreams
"""

import contextlib
from collections.abc import AsyncIterator, Sequence

from hooktide.subscription.v1 import access_pb2

from gateway.authentication import Authenticator, Caller
from gateway.listener import HttpLimits, listening
from gateway.pipeline import ClientLimits, Pipeline
from gateway.readiness import Readiness
from gateway.request_body import BodyReader
from gateway.router import Route, Router
from gateway.routes.consumers import Consumers
from gateway.routes.deliveries import Deliveries
from gateway.routes.event_types import EventTypes
from gateway.routes.events import Events
from gateway.routes.health import Health
from gateway.routes.keys import Keys
from gateway.routes.problem_docs import ProblemDocs
from gateway.routes.subscriptions import Subscriptions
from gateway.routes.system import System
from gateway.routes.verifications import Verifications
from gateway.translate.keys import caller_or_refusal
from gateway.upstreams import Upstreams, connected_upstreams
from services.runtime.authentication_throttle import AuthenticationThrottle
from services.runtime.background import in_background
from services.runtime.clock import SystemClock
from services.runtime.configuration.reload import Reloadable, reloading
from services.runtime.configuration.settings import GatewaySettings
from services.runtime.errors import Failure
from services.runtime.fair_semaphore import FairSemaphore, Share
from services.runtime.file_limit import connections_within
from services.runtime.http.admin import admin_app, http_server
from services.runtime.http.connection_limits import ConnectionLimits
from services.runtime.http.listener import Gate
from services.runtime.service_process import Addresses, ServiceProcess
from services.runtime.tls import server_tls

_LIMITS = HttpLimits()
# How many consumers may use their whole shares at once, and how many of a consumer's requests may wait for each that is in progress.
_CONSUMERS_AT_ONCE, _WAITING_FACTOR = 32, 8
# The throttle of requests that need no key, and of requests for routes that do not exist.
_ANONYMOUS_BURST, _ANONYMOUS_PER_SECOND = 200, 100.0


def route_table(upstreams: Upstreams, body_reader: BodyReader, readiness: Readiness) -> list[Route]:
    """Return all routes."""
    return [
        *Subscriptions(upstreams, body_reader).routes(),
        *Verifications(upstreams).routes(),
        *EventTypes(upstreams).routes(),
        *Events(upstreams).routes(),
        *Deliveries(upstreams).routes(),
        *Consumers(upstreams, body_reader).routes(),
        *Keys(upstreams, body_reader).routes(),
        *System(upstreams, body_reader).routes(),
        *ProblemDocs().routes(),
        *Health(readiness).routes(),
    ]


def connection_limits(settings: GatewaySettings) -> ConnectionLimits:
    """Return the limits of the public listener, below the limit of open files."""
    connections_max = connections_within("HOOKTIDE_GATEWAY_CONNECTIONS_MAX", settings.gateway_connections_max)
    return ConnectionLimits(
        connections_max=connections_max,
        network_connections_max=min(settings.gateway_address_connections_max, connections_max),
        network_connections_per_second=settings.gateway_address_connections_per_second,
        headers_s=settings.gateway_headers_seconds,
        idle_s=settings.gateway_idle_seconds,
    )


def client_limits(settings: GatewaySettings) -> ClientLimits:
    """Return the limits that keep clients from taking each other's capacity."""
    each_max = settings.gateway_consumer_requests_max
    return ClientLimits(
        proxies=settings.proxies(),
        networks=FairSemaphore(Share(settings.gateway_connections_max, settings.gateway_address_connections_max), owner_waiting_max=0),
        consumers=FairSemaphore(Share(_CONSUMERS_AT_ONCE * each_max, each_max), owner_waiting_max=_WAITING_FACTOR * each_max),
        refused_keys=AuthenticationThrottle(
            burst=settings.authentication_failures_burst, per_second=settings.authentication_failures_per_second
        ),
        anonymous=AuthenticationThrottle(burst=_ANONYMOUS_BURST, per_second=_ANONYMOUS_PER_SECOND),
    )


@contextlib.asynccontextmanager
async def running(settings: GatewaySettings, process: ServiceProcess, limits: HttpLimits = _LIMITS) -> AsyncIterator[Addresses]:
    """Run the gateway, even if the services behind it do not run yet; yields the addresses bound.

    On exit it takes no more connections, answers the requests in flight, then closes the channels to the services.
    Raises `StartError` if it cannot start.
    """
    reloadable = Reloadable(settings)
    tls = server_tls(reloadable, "gateway")
    async with connected_upstreams(reloadable) as upstreams:

        async def ask(keys: Sequence[str]) -> list[Caller | Failure]:
            answer = await upstreams.call(upstreams.access.AuthenticateKeys, access_pb2.AuthenticateKeysRequest(keys=keys))
            return [caller_or_refusal(result) for result in answer.results]

        gate = Gate(connection_limits(settings), settings.proxies())

        def change_limits(new: GatewaySettings) -> None:
            gate.change(connection_limits(new), new.proxies())
            pipeline.client_limits = client_limits(new)
            body_reader.bytes_max = new.gateway_body_bytes_max

        reloadable.on_reload(change_limits)
        readiness = Readiness(upstreams.why_not_ready, process)
        body_reader = BodyReader(settings.gateway_body_bytes_max, limits.body_s)
        clock = SystemClock()
        pipeline = Pipeline(
            Router(route_table(upstreams, body_reader, readiness)), Authenticator(ask, clock), client_limits(settings), clock, limits
        )
        async with (
            http_server(
                admin_app(readiness.why_not_ready, readiness.why_degraded),
                settings.gateway_admin_listen,
                tls=server_tls(reloadable, "admin"),
            ) as admin,
            listening(pipeline, settings.gateway_listen, limits, gate, tls) as listen,
            in_background(readiness.keep_checking()),
            reloading(reloadable, process),
        ):
            yield Addresses(listen=listen, admin=admin)
