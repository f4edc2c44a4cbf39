"""Admin: the small HTTP server of every service, for operators: /healthz, /readyz, /metrics."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.runtime.http.connection_limits import Connection, ConnectionLimits
from services.runtime.http.listener import Gate, GuardedConnection, accepting
from services.runtime.tls import ServerTls

Ready = Callable[[], str | None]

# Probes and a monitoring system need few connections; the service needs its files for its own work.
_LIMITS = ConnectionLimits(connections_max=64, network_connections_max=32, headers_s=5.0, idle_s=75.0)


async def _own_metrics() -> bytes:
    return generate_latest()


def admin_app(
    ready: Ready,
    degraded: Ready = lambda: None,
    *,
    parts: tuple[str, Callable[[], Mapping[str, str]]] | None = None,
    metrics: Callable[[], Awaitable[bytes]] = _own_metrics,
) -> web.Application:
    """Return the application. `ready` returns None, or a sentence that says why the service takes no work.

    `degraded` returns None, or a sentence that says why the service does only a part of its work. /readyz then still answers 200: after a
    503, a load balancer would remove the service, and so the part that works.
    `parts` names the processes that the service consists of, and returns the state of each; /readyz shows them. `metrics` returns the page
    of /metrics, by default with what this process measures.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return _json_line({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        more = {} if parts is None else {parts[0]: dict(parts[1]())}
        if (why := ready()) is not None:
            return _json_line({"status": "not ready", "detail": why, **more}, status=503)
        why = degraded()
        return _json_line({"status": "ok", **more} if why is None else {"status": "degraded", "detail": why, **more})

    async def show_metrics(_request: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={"content-type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", show_metrics)])
    return app


def _json_line(body: Mapping[str, object], *, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(body) + "\n", status=status, content_type="application/json")


@contextlib.asynccontextmanager
async def http_server(
    app: web.Application, listen: str, limits: ConnectionLimits = _LIMITS, tls: ServerTls | None = None
) -> AsyncIterator[str]:
    """Serve an application on `listen` (``host:port``), over TLS if `tls` is set; yields the address bound. Raises `StartError`."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    server, gate, loop = runner.server, Gate(limits), asyncio.get_running_loop()
    assert server is not None  # noqa: S101 - the runner is set up

    def connect(connection: Connection) -> GuardedConnection:
        return GuardedConnection(server, gate, connection, loop=loop, access_log=None)

    try:
        async with accepting(connect, gate, listen, tls=None if tls is None else tls.http_context()) as bound:
            yield bound
    finally:
        await runner.cleanup()
