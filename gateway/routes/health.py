"""Health: the routes that answer whether the gateway runs and whether it can serve. They need no key."""

from aiohttp import web

from gateway.readiness import Readiness
from gateway.responses import json_response
from gateway.router import Call, Route
from services.runtime.errors import Failure, Reason


class Health:
    """The handlers."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [Route("GET", "/healthz", self.healthz, None), Route("GET", "/readyz", self.readyz, None)]

    async def healthz(self, _call: Call) -> web.Response:
        """Return 200 while the process answers at all."""
        return json_response({"status": "ok"})

    async def readyz(self, _call: Call) -> web.Response:
        """Return 200 with the state of all services if the registry answers; else a problem that names the services that are away."""
        why = self._readiness.why_not_ready()
        if why is not None:
            raise Failure(Reason.UNAVAILABLE, why)
        status = "ok" if self._readiness.why_degraded() is None else "degraded"
        return json_response({"status": status, "services": self._readiness.services()})
