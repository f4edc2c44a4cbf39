"""Problem docs: the routes that explain each problem type; a problem's `type` leads here. They need no key."""

from aiohttp import web

from gateway.problem_types import PROBLEM_DOCS_PATH, PROBLEM_TYPES, doc_path_of, reason_of
from gateway.responses import json_response
from gateway.router import Call, Route
from services.runtime.errors import Failure, Reason

_HOUR_LONG = {"cache-control": "public, max-age=3600"}


class ProblemDocs:
    """The handlers."""

    def routes(self) -> list[Route]:
        """Return the table of these routes."""
        return [Route("GET", PROBLEM_DOCS_PATH, self.errors, None), Route("GET", f"{PROBLEM_DOCS_PATH}/{{reason}}", self.error, None)]

    async def errors(self, _call: Call) -> web.Response:
        """Return 200 with all problem types."""
        return json_response({"items": [_shown(reason) for reason in PROBLEM_TYPES], "next_cursor": None}, headers=_HOUR_LONG)

    async def error(self, call: Call) -> web.Response:
        """Return 200 with one problem type."""
        reason = reason_of(call.path["reason"])
        if reason is None:
            raise Failure(Reason.ROUTE_NOT_FOUND, f"There is no problem type of this name; {PROBLEM_DOCS_PATH} lists all problem types.")
        return json_response(_shown(reason), headers=_HOUR_LONG)


def _shown(reason: Reason) -> dict[str, object]:
    problem_type = PROBLEM_TYPES[reason]
    return {
        "type": doc_path_of(reason),
        "title": problem_type.title,
        "status": problem_type.status,
        "reason": reason.name,
        "meaning": problem_type.meaning,
        "waiting_helps": problem_type.waiting_helps,
    }
