import re

import pytest

from gateway.problem_types import PROBLEM_TYPES
from gateway.problems import problem_of
from services.runtime.errors import Failure, Reason
from tests.gateway.world import World


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
async def test_every_problem_s_type_is_a_page_about_it(world: World, reason: Reason) -> None:
    """The page needs no key, since a client without a key meets problems too."""
    problem = problem_of(Failure(reason, "Why."), "req_1")
    answer = await world.call("GET", str(problem.members["type"]), key="")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert {name: answer.json[name] for name in ("type", "title", "status", "reason")} == {
        name: problem.members[name] for name in ("type", "title", "status", "reason")
    }
    assert answer.json["waiting_helps"] == ("retry-after" in problem.headers)
    assert answer.json["meaning"].endswith(".")


async def test_all_pages_are_listed(world: World) -> None:
    answer = await world.call("GET", "/docs/errors", key="")
    assert [item["reason"] for item in answer.json["items"]] == [reason.name for reason in PROBLEM_TYPES]
    assert answer.headers["cache-control"] == "public, max-age=3600"


@pytest.mark.parametrize("name", ["nonsense", "ETAG_MISMATCH", "service-token-required", "etag-mismatch%2F"])
async def test_there_is_no_page_about_what_no_client_meets(world: World, name: str) -> None:
    answer = await world.call("GET", f"/docs/errors/{name}", key="")
    assert (answer.status, answer.json["reason"]) == (404, "ROUTE_NOT_FOUND")


async def test_the_pages_name_routes_that_there_are(world: World) -> None:
    routes = set(re.findall(r"(GET|POST) (/v1/[a-z-]+)", " ".join(kind.meaning for kind in PROBLEM_TYPES.values())))
    assert routes
    for method, path in routes:
        answer = await world.call("OPTIONS", path)
        assert method in answer.headers["allow"].split(", ")
