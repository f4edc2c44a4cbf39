"""App: the gateway put together.

settings → [app] → listener → pipeline → routes → peers
"""

import contextlib
from collections.abc import AsyncIterator

from hooktide.subscription.v1 import access_pb2

from gateway.authenticate import Authenticator, Caller
from gateway.bodies import Bodies
from gateway.listener import HttpLimits, listening
from gateway.peers import Peers, connected
from gateway.pipeline import Pipeline
from gateway.readiness import Readiness, watched
from gateway.router import Route, Router
from gateway.routes.access import Access
from gateway.routes.catalogue import Catalogue
from gateway.routes.documents import Documents
from gateway.routes.health import Health
from gateway.routes.history import History
from gateway.routes.subscriptions import Subscriptions
from gateway.routes.verifications import Verifications
from gateway.translate.access import caller_of
from services.runtime.admin import admin_app, http_server
from services.runtime.clock import SystemClock
from services.runtime.lifecycle import Addresses, Lifecycle
from services.runtime.reload import Reloadable, reloading
from services.runtime.settings import GatewaySettings

_LIMITS = HttpLimits()


def route_table(peers: Peers, bodies: Bodies, readiness: Readiness) -> list[Route]:
    """Return everything that can be called."""
    return [
        *Subscriptions(peers, bodies).routes(),
        *Verifications(peers).routes(),
        *Catalogue(peers).routes(),
        *History(peers).routes(),
        *Access(peers, bodies).routes(),
        *Documents().routes(),
        *Health(readiness).routes(),
    ]


@contextlib.asynccontextmanager
async def running(settings: GatewaySettings, lifecycle: Lifecycle, limits: HttpLimits = _LIMITS) -> AsyncIterator[Addresses]:
    """Run the gateway, whether or not the services behind it are there yet; yields the addresses bound.

    On exit it takes no more connections, answers the requests under way, then lets go of the services.
    Raises `StartError` where it cannot start.
    """
    reloadable = Reloadable(settings)
    async with connected(settings) as peers:

        async def ask(key: str) -> Caller:
            answer = await peers.call(peers.access.Authenticate, access_pb2.AuthenticateRequest(key=key))
            return caller_of(answer.key)

        readiness = Readiness(peers.answers, lifecycle)
        bodies = Bodies(settings.gateway_body_bytes_max, limits.body_s)
        pipeline = Pipeline(Router(route_table(peers, bodies, readiness)), Authenticator(ask, SystemClock()), limits)
        async with (
            http_server(admin_app(readiness.why_not), settings.gateway_admin_listen) as admin,
            listening(pipeline, settings.gateway_listen, limits) as listen,
            watched(readiness),
            reloading(reloadable, lifecycle),
        ):
            yield Addresses(listen=listen, admin=admin)


async def serve(settings: GatewaySettings, lifecycle: Lifecycle) -> None:
    """Run the gateway until its process is asked to stop."""
    async with running(settings, lifecycle) as addresses:
        lifecycle.ready(listen=addresses.listen, admin=addresses.admin)
        await lifecycle.stopping.wait()
