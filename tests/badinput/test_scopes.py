"""Scopes: every call of the contract that reads or changes consumers' data names its scope, and is refused without one."""

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from hooktide.delivery.v1 import delivery_pb2
from hooktide.ingest.v1 import event_log_pb2, ingest_pb2, notice_pb2
from hooktide.subscription.v1 import access_pb2, catalogue_pb2, subscription_pb2, system_pb2

from services.runtime.errors import Failure, Reason, failure_from_rpc
from tests.support.system.processes import System

# The contract's files, with the service that serves each.
FILES = {
    access_pb2: "subscription",
    catalogue_pb2: "subscription",
    subscription_pb2: "subscription",
    system_pb2: "subscription",
    event_log_pb2: "ingest",
    ingest_pb2: "ingest",
    notice_pb2: "ingest",
    delivery_pb2: "delivery",
}
METHODS: dict[str, tuple[str, MethodDescriptor]] = {
    f"{contract.name}.{method.name}": (served_by, method)
    for file, served_by in FILES.items()
    for contract in file.DESCRIPTOR.services_by_name.values()
    for method in contract.methods
}
# The methods without a scope, by what stands in its place.
UNSCOPED = {
    "an administrator's alone, at the gateway": {
        "AccessService.CreateConsumer",
        "AccessService.GetConsumer",
        "AccessService.ListConsumers",
        "AccessService.PauseConsumer",
        "AccessService.ResumeConsumer",
        "AccessService.CreateKey",
        "AccessService.GetKey",
        "AccessService.ListKeys",
        "AccessService.RevokeKey",
        "AccessService.GetResealing",
        "SystemService.GetSystem",
        "SystemService.PauseSystem",
        "SystemService.ResumeSystem",
    },
    "the key or the token in the call says who it is": {
        "AccessService.Authenticate",
        "AccessService.AuthenticateKeys",
        "IngestService.Publish",
        "IngestService.PublishBatch",
        "IngestService.PublishStream",
        "SubscriptionService.ConfirmVerification",
    },
    "the same for all consumers": {
        "CatalogueService.GetEventType",
        "CatalogueService.ListEventTypes",
        "CatalogueService.FindAudienceRequired",
        "CatalogueService.PutEventType",
        "CatalogueService.DeleteEventType",
    },
    "among the services, which serve all consumers": {
        "SubscriptionService.DisableSubscription",
        "SubscriptionService.ReportVerification",
        "SubscriptionService.GetRevision",
        "SubscriptionService.AskRevision",
        "SubscriptionService.WatchSubscriptions",
        "EventLogService.FollowLog",
        "EventLogService.ReadLog",
        "EventLogService.FetchEvents",
        "EventLogService.ReportProgress",
        "EventLogService.FindResumePoints",
        "EventLogService.GetReadiness",
        "NoticeService.PublishNotices",
        "DeliveryService.RepairRouting",
        "DeliveryService.GetReadiness",
    },
}
SCOPED = sorted(METHODS.keys() - {name for names in UNSCOPED.values() for name in names})
# The owner of a new subscription is one consumer, and the registry looks it up.
CREATING = "SubscriptionService.CreateSubscription"


def test_every_method_has_a_scope_or_something_in_its_place() -> None:
    assert {name for names in UNSCOPED.values() for name in names} <= METHODS.keys()
    assert {name for name, (_, method) in METHODS.items() if "consumer_id" in method.input_type.fields_by_name} == set(SCOPED)


async def refused(system: System, name: str, consumer_id: str) -> Failure:
    """Return the failure of a call with this `consumer_id` and nothing else."""
    served_by, method = METHODS[name]
    request: Any = GetMessageClass(method.input_type)(consumer_id=consumer_id)
    call: grpc.aio.UnaryUnaryMultiCallable[Any, Any] = system.channel(served_by).unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(request, metadata=system.metadata, timeout=20)
    return failure_from_rpc(caught.value)


@pytest.mark.parametrize("name", SCOPED)
async def test_a_call_without_a_scope_is_refused(system: System, name: str) -> None:
    failure = await refused(system, name, "")
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert failure.fields[0].field == "consumer_id"
    assert failure.fields[0].description.startswith("is required: ")


@pytest.mark.parametrize("consumer_id", ["con_", "**", "sub_" + "0" * 32, "everyone"])
@pytest.mark.parametrize("name", [name for name in SCOPED if name != CREATING])
async def test_a_call_whose_scope_is_malformed_is_refused(system: System, name: str, consumer_id: str) -> None:
    failure = await refused(system, name, consumer_id)
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert failure.fields[0].field == "consumer_id"
    assert failure.fields[0].description.startswith("must be ")


async def test_no_subscription_is_created_for_everyone(system: System) -> None:
    failure = await refused(system, CREATING, "*")
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert failure.fields[0].field == "consumer_id"
