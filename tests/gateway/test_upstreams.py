import pytest

from services.runtime.errors import Failure, Reason
from tests.gateway.world import World


@pytest.mark.parametrize(
    ("failure", "status", "reason", "retry_after"),
    [
        (Failure(Reason.DEADLINE_EXCEEDED, "Too late."), 504, "DEADLINE_EXCEEDED", None),
        (Failure(Reason.OVERLOADED, "Busy.", retry_after_s=2.5), 429, "OVERLOADED", "3"),
        (Failure(Reason.STORAGE_FULL, "Full.", retry_after_s=5), 503, "STORAGE_FULL", "5"),
        (Failure(Reason.POSITION_MISMATCH, "For services only."), 500, "INTERNAL", None),
        (Failure(Reason.ROUTE_NOT_FOUND, "For services only."), 500, "INTERNAL", None),
        (Failure(Reason.SERVICE_TOKEN_REQUIRED, "For services only."), 500, "INTERNAL", None),
        (RuntimeError("the password is hunter2"), 500, "INTERNAL", None),
    ],
)
async def test_what_a_service_refuses_with_reaches_the_client_in_form(
    world: World, failure: Exception, status: int, reason: str, retry_after: str | None
) -> None:
    world.log.failure = failure
    try:
        answer = await world.call("GET", "/v1/events")
    finally:
        world.log.failure = None
    assert (answer.status, answer.json["reason"], answer.headers.get("retry-after")) == (status, reason, retry_after)
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"hunter2" not in answer.raw
    assert b"For services only" not in answer.raw
