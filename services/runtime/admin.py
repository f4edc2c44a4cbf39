"""Admin: the small HTTP side of every service, for operators: /healthz, /readyz, /metrics."""

import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.runtime.lifecycle import cannot_listen

Ready = Callable[[], str | None]


def admin_app(ready: Ready) -> web.Application:
    """Return the application; `ready` returns None, or in a sentence why work cannot be taken."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        why = ready()
        return web.json_response(
            {"status": "ok"} if why is None else {"status": "not ready", "detail": why}, status=200 if why is None else 503
        )

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


@contextlib.asynccontextmanager
async def http_server(app: web.Application, listen: str) -> AsyncIterator[str]:
    """Serve an application on `listen` (``host:port``); yields the address bound."""
    host, _, port = listen.rpartition(":")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host.strip("[]"), int(port))
        try:
            await site.start()
        except OSError as error:
            raise cannot_listen(listen, error) from error
        bound = runner.addresses[0]
        yield f"{host}:{bound[1]}"
    finally:
        await runner.cleanup()
