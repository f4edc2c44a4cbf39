"""Page tokens and cursors: opaque, but any client can make one, since their checksum is no secret."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from hooktide.delivery.v1 import delivery_pb2
from hooktide.ingest.v1 import event_log_pb2
from hooktide.subscription.v1 import access_pb2, access_pb2_grpc, catalogue_pb2, subscription_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.runtime.errors import Reason, failure_from_rpc
from services.runtime.paging import page_token
from tests.support.system.processes import System

ODD = st.sampled_from([2**63 - 1, 2**63, -(2**63), 2**200, "\ud800", "\x00", "0" * 33])
PARTS = st.integers() | st.text(max_size=40) | ODD
PLACES = st.lists(PARTS, max_size=3)
_OK = {None, Reason.PAGE_TOKEN_INVALID}


def listings(system: System) -> dict[str, Callable[[str], Awaitable[Any]]]:
    """Return a call for every list, by the kind that the list's tokens name."""
    access = access_pb2_grpc.AccessServiceStub(system.channel("subscription"))
    calls: dict[str, tuple[Any, Any]] = {
        "subscriptions/*": (system.subscriptions.ListSubscriptions, subscription_pb2.ListSubscriptionsRequest(consumer_id="*")),
        "event-types": (system.catalogue.ListEventTypes, catalogue_pb2.ListEventTypesRequest()),
        "consumers": (access.ListConsumers, access_pb2.ListConsumersRequest()),
        "keys": (access.ListKeys, access_pb2.ListKeysRequest()),
        "events": (system.event_log.ListEvents, event_log_pb2.ListEventsRequest(consumer_id="*")),
        "deliveries": (system.deliveries.ListDeliveries, delivery_pb2.ListDeliveriesRequest(consumer_id="*")),
    }

    def listing(method: Any, request: Any) -> Callable[[str], Awaitable[Any]]:
        async def call(token: str) -> Any:
            asked = type(request)()
            asked.CopyFrom(request)
            asked.page_token = token
            return await method(asked, metadata=system.metadata)

        return call

    return {kind: listing(*each) for kind, each in calls.items()}


async def reason(call: Awaitable[Any]) -> Reason | None:
    """Return the reason with which a call is refused, None if it is answered."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return failure_from_rpc(error).reason
    return None


KINDS = ("subscriptions/*", "event-types", "consumers", "keys", "events", "deliveries")


@pytest.mark.parametrize("kind", KINDS)
@given(place=PLACES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_token_of_anybodys_making_is_a_place_or_refused(system: System, kind: str, place: list[int | str]) -> None:
    """The token has the right kind and checksum, and names any place: it causes no fault in any list."""
    assert await reason(listings(system)[kind](page_token(kind, tuple(place)))) in _OK


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_of_another_list_or_none_at_all_is_refused(system: System, kind: str) -> None:
    call = listings(system)[kind]
    for token in ("x", "===", "\u2028", page_token("another list", ("a",)), page_token(kind, ())):
        assert await reason(call(token)) is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("path", ["/v1/subscriptions", "/v1/event-types", "/v1/consumers", "/v1/keys", "/v1/events", "/v1/deliveries"])
async def test_a_wrong_cursor_is_named_and_says_how_to_begin(system: System, path: str) -> None:
    for cursor in ("nonsense", "'; DROP TABLE keys; --", page_token("deliveries", ("zz",)), page_token("events", (2**64,)), "a" * 5000):
        status, problem = await system.call("GET", f"{path}?cursor={quote(cursor)}", system.first.admin)
        assert (status, problem["reason"]) == (400, "PAGE_TOKEN_INVALID"), problem
        assert problem["errors"] == [
            {"parameter": "cursor", "detail": "was not returned by this list; leave it out to begin at the first page"}
        ]
