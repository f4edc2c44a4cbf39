"""Documents: the routes that explain each problem type; a problem's `type` leads here. They need no key."""

from aiohttp import web

from gateway.answers import json_answer
from gateway.problem_types import DOCUMENTS, KINDS, document_of, reason_of
from gateway.router import Call, Route
from services.runtime.errors import Failure, Reason

_HOUR_LONG = {"cache-control": "public, max-age=3600"}


class Documents:
    """The handlers."""

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [Route("GET", DOCUMENTS, self.errors, None), Route("GET", f"{DOCUMENTS}/{{reason}}", self.error, None)]

    async def errors(self, _call: Call) -> web.Response:
        """Return 200 with all problem types."""
        return json_answer({"items": [_shown(reason) for reason in KINDS], "next_cursor": None}, headers=_HOUR_LONG)

    async def error(self, call: Call) -> web.Response:
        """Return 200 with one problem type."""
        reason = reason_of(call.path["reason"])
        if reason is None:
            raise Failure(Reason.ROUTE_NOT_FOUND, f"There is no such kind of problem; {DOCUMENTS} lists those there are.")
        return json_answer(_shown(reason), headers=_HOUR_LONG)


def _shown(reason: Reason) -> dict[str, object]:
    kind = KINDS[reason]
    return {
        "type": document_of(reason),
        "title": kind.title,
        "status": kind.status,
        "reason": reason.name,
        "meaning": kind.meaning,
        "waiting_helps": kind.waiting_helps,
    }
