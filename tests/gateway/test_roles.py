"""Roles: which role may make which call; the whole matrix, against the running gateway."""

import pytest

from gateway.app import route_table
from gateway.readiness import Readiness
from gateway.request_body import BodyReader
from gateway.upstreams import connected_upstreams
from services.runtime.configuration.reload import Reloadable
from services.runtime.ids import new_id
from services.runtime.service_process import ServiceProcess
from tests.gateway.world import World, gateway_settings

OWNERS = {"admin", "consumer"}
ADMINS = {"admin"}
EVERYONE = {"admin", "emitter", "consumer"}
ROLES = {
    ("POST", "/v1/subscriptions"): OWNERS,
    ("GET", "/v1/subscriptions"): OWNERS,
    ("GET", "/v1/subscriptions/{id}"): OWNERS,
    ("PUT", "/v1/subscriptions/{id}"): OWNERS,
    ("PATCH", "/v1/subscriptions/{id}"): OWNERS,
    ("DELETE", "/v1/subscriptions/{id}"): OWNERS,
    ("GET", "/v1/subscriptions/{id}/secret"): OWNERS,
    ("POST", "/v1/subscriptions/{id}/secret/rotate"): OWNERS,
    ("POST", "/v1/subscriptions/{id}/pause"): OWNERS,
    ("POST", "/v1/subscriptions/{id}/resume"): OWNERS,
    ("POST", "/v1/subscriptions/{id}/verify"): OWNERS,
    ("POST", "/v1/subscriptions/{id}/test"): OWNERS,
    ("GET", "/v1/event-types"): EVERYONE,
    ("GET", "/v1/event-types/{name}"): EVERYONE,
    ("GET", "/v1/events"): OWNERS,
    ("GET", "/v1/events/{id}"): OWNERS,
    ("GET", "/v1/deliveries"): OWNERS,
    ("GET", "/v1/deliveries/{id}"): OWNERS,
    ("GET", "/v1/whoami"): EVERYONE,
    ("POST", "/v1/consumers"): ADMINS,
    ("GET", "/v1/consumers"): ADMINS,
    ("GET", "/v1/consumers/{id}"): ADMINS,
    ("POST", "/v1/consumers/{id}/pause"): ADMINS,
    ("POST", "/v1/consumers/{id}/resume"): ADMINS,
    ("GET", "/v1/system"): ADMINS,
    ("POST", "/v1/system/pause"): ADMINS,
    ("POST", "/v1/system/resume"): ADMINS,
    ("POST", "/v1/keys"): ADMINS,
    ("GET", "/v1/keys"): ADMINS,
    ("GET", "/v1/keys/{id}"): ADMINS,
    ("DELETE", "/v1/keys/{id}"): ADMINS,
}
KEYLESS = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/docs/errors"),
    ("GET", "/docs/errors/{reason}"),
    ("GET", "/v1/verifications/{token}"),
    ("POST", "/v1/verifications/{token}"),
}


async def test_the_matrix_names_every_route_there_is() -> None:
    async with connected_upstreams(Reloadable(gateway_settings(registry="127.0.0.1:1"))) as upstreams:
        table = route_table(upstreams, BodyReader(1, 1), Readiness(upstreams.why_not_ready, ServiceProcess("gateway")))
    assert {(route.method, route.template) for route in table if route.roles is None} == KEYLESS
    assert {(route.method, route.template): {role.value for role in route.roles} for route in table if route.roles is not None} == ROLES


@pytest.mark.parametrize("role", ["admin", "emitter", "consumer", "none"])
@pytest.mark.parametrize(("method", "template"), list(ROLES), ids=" ".join)
async def test_a_role_may_what_the_matrix_says(world: World, method: str, template: str, role: str) -> None:
    """A forbidden call is refused before its query and body are read; an allowed call is not refused for its role."""
    path = template.format(id=new_id("sub"), name="no.such") + "?unknown=1"
    key = {"admin": world.keys.admin, "emitter": world.keys.emitter, "consumer": world.keys.consumer, "none": ""}[role]
    answer = await world.call(method, path, key=key, raw=b"{not json" if method in {"POST", "PUT", "PATCH"} else None)
    if role == "none":
        assert (answer.status, answer.json["reason"]) == (401, "KEY_REQUIRED")
    elif role in ROLES[method, template]:
        assert (answer.status, answer.json["reason"]) == (400, "INVALID_ARGUMENT")
        assert answer.json["errors"][0]["parameter"] == "unknown"
    else:
        assert (answer.status, answer.json["reason"]) == (403, "ROLE_FORBIDDEN")
        assert role in answer.json["detail"]
