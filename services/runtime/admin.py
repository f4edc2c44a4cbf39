"""Admin: the small HTTP side of every service, for operators: /healthz, /readyz, /metrics."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.runtime.lifecycle import cannot_listen

Ready = Callable[[], str | None]


def admin_app(ready: Ready) -> web.Application:
    """Return the application; `ready` returns None, or in a sentence why work cannot be taken."""

    async def healthz(_request: web.Request) -> web.Response:
        return _json_line({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        why = ready()
        return _json_line({"status": "ok"}) if why is None else _json_line({"status": "not ready", "detail": why}, status=503)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


def _json_line(body: dict[str, str], *, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(body) + "\n", status=status, content_type="application/json")


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
