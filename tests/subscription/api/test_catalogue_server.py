from collections.abc import Iterable

import grpc
import pytest
from hooktide.subscription.v1 import access_pb2
from hooktide.subscription.v1 import catalogue_pb2 as pb

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.errors import Reason
from services.runtime.rpc.channel_and_server import service_metadata
from tests.support.clock import MovedClock
from tests.support.system.registry import Client, refused, served


async def put(
    client: Client, name: str, description: str = "", *, audience_required: bool = False, etag: str = ""
) -> pb.PutEventTypeResponse:
    event_type = pb.EventType(name=name, description=description, audience_required=audience_required, etag="ignored")
    return await client.call(client.catalogue.PutEventType, pb.PutEventTypeRequest(event_type=event_type, etag=etag))


async def get(client: Client, name: str) -> pb.EventType:
    return (await client.call(client.catalogue.GetEventType, pb.GetEventTypeRequest(name=name))).event_type


async def audience_required(client: Client, names: Iterable[str]) -> list[str]:
    answer = await client.call(client.catalogue.FindAudienceRequired, pb.FindAudienceRequiredRequest(names=names))
    return sorted(answer.names)


async def delete(client: Client, name: str, etag: str = "") -> None:
    await client.call(client.catalogue.DeleteEventType, pb.DeleteEventTypeRequest(name=name, etag=etag))


async def test_an_event_type_is_written_read_changed_and_deleted(settings: SubscriptionSettings) -> None:
    clock = MovedClock()
    async with served(settings, clock) as client:
        first = await put(client, "order.created", "An order was placed.", audience_required=True)
        assert first.created
        assert (first.event_type.description, first.event_type.audience_required) == ("An order was placed.", True)
        assert await get(client, "order.created") == first.event_type

        clock.time_s += 5
        second = await put(client, "order.created", "Changed.")
        assert not second.created
        assert (second.event_type.description, second.event_type.audience_required) == ("Changed.", False)
        assert second.event_type.create_time == first.event_type.create_time
        assert second.event_type.update_time.seconds == first.event_type.update_time.seconds + 5
        assert second.event_type.etag != first.event_type.etag

        await delete(client, "order.created")
        assert (await refused(get(client, "order.created"))).reason is Reason.EVENT_TYPE_NOT_FOUND
        assert (await refused(delete(client, "order.created"))).reason is Reason.EVENT_TYPE_NOT_FOUND


async def test_an_etag_guards_against_a_change_in_between(client: Client) -> None:
    """An etag also says that the event type exists, and an etag from before a deletion never fits again."""
    assert (await refused(put(client, "a", etag="e"))).reason is Reason.ETAG_MISMATCH
    first = (await put(client, "a")).event_type
    second = (await put(client, "a", "changed", etag=first.etag)).event_type
    assert (await refused(put(client, "a", etag=first.etag))).reason is Reason.ETAG_MISMATCH
    assert (await refused(delete(client, "a", first.etag))).reason is Reason.ETAG_MISMATCH
    assert await get(client, "a") == second
    await delete(client, "a", second.etag)
    again = (await put(client, "a")).event_type
    assert again.etag not in {first.etag, second.etag}


async def test_event_types_are_listed_by_name(client: Client) -> None:
    names = ["b", "a.b", "a", "a-b", "Z"]
    for name in names:
        await put(client, name)
    found: list[str] = []
    token = ""
    while True:
        answer = await client.call(client.catalogue.ListEventTypes, pb.ListEventTypesRequest(page_size=2, page_token=token))
        found += [event_type.name for event_type in answer.event_types]
        token = answer.next_page_token
        if not token:
            break
    assert found == sorted(names)
    wrong = client.call(client.catalogue.ListEventTypes, pb.ListEventTypesRequest(page_token="x"))
    assert (await refused(wrong)).reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("name", ["", "a.*", "*", "a*b", "a\n", "\ufdd0", "a" * 257, "ü" * 129])
async def test_a_name_that_no_event_may_have_is_refused(client: Client, name: str) -> None:
    failure = await refused(put(client, name, "d" * 4001))
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert {error.field for error in failure.fields} == {"event_type.name", "event_type.description"}


async def test_a_name_of_256_bytes_and_a_description_of_4000_characters_are_taken(client: Client) -> None:
    assert (await put(client, "a" * 256, "ü" * 4000)).created


async def test_a_call_that_names_nothing_is_told_so(client: Client) -> None:
    assert (await refused(get(client, ""))).reason is Reason.INVALID_ARGUMENT
    assert (await refused(delete(client, ""))).reason is Reason.INVALID_ARGUMENT


async def test_those_types_are_found_that_require_an_audience(client: Client) -> None:
    """Each name in the question is found at most once; a name that is not in the catalogue, or could never be, requires no audience."""
    for name in ("a", "b", "c", "not.asked"):
        await put(client, name, audience_required=name != "b")
    asked = ["c", "b", "a", "a", "missing", "A", "a ", "", "a\x00", "%", "no name ü", "a" * 5000]
    assert await audience_required(client, asked) == ["a", "c"]
    assert await audience_required(client, ["b"]) == []

    await put(client, "a")
    await put(client, "b", audience_required=True)
    await delete(client, "c")
    assert await audience_required(client, asked) == ["b"]


async def test_1_to_1000_types_are_asked_for_in_one_call(client: Client) -> None:
    await put(client, "n.999", audience_required=True)
    assert await audience_required(client, (f"n.{number}" for number in range(1000))) == ["n.999"]
    for count in (0, 1001):
        failure = await refused(audience_required(client, ["n.999"] * count))
        assert (failure.reason, [error.field for error in failure.fields]) == (Reason.INVALID_ARGUMENT, ["names"])
        assert str(count) in failure.message


async def test_only_services_are_told_which_types_require_an_audience(client: Client) -> None:
    request = pb.FindAudienceRequiredRequest(names=["a"])
    emitter = (await client.key(access_pb2.ROLE_EMITTER)).clear_text
    for token in ("", emitter):
        call = client.catalogue.FindAudienceRequired(request, metadata=service_metadata(token), timeout=20)
        assert (await refused(call)).reason is Reason.SERVICE_TOKEN_REQUIRED
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_catalogue_is_no_matter_of_the_revision(client: Client) -> None:
    await put(client, "a")
    await delete(client, "a")
    assert await client.revision() == 1
