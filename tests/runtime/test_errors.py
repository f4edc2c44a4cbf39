import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from services.runtime.errors import STATUS_DETAILS_KEY, Failure, FieldError, Reason, failure_from_rpc, failure_status, invalid_fields


def received(failure: Failure) -> Failure:
    """Return a failure as the caller of a service receives it."""
    details = Metadata((STATUS_DETAILS_KEY, failure_status(failure).SerializeToString()))
    return failure_from_rpc(AioRpcError(failure.reason.code, Metadata(), details))


@pytest.mark.parametrize("reason", Reason)
def test_a_failure_reaches_the_caller_with_its_reason_and_its_sentence(reason: Reason) -> None:
    told = received(Failure(reason, "Say what to change.", retry_after_s=1.5))
    assert (told.reason, told.message, told.retry_after_s, told.fields) == (reason, "Say what to change.", 1.5, ())


def test_wrong_fields_reach_the_caller_one_by_one() -> None:
    fields = (FieldError("subscription.sink", "must be a URL"), FieldError("subscription.types[0]", "is empty"))
    told = received(invalid_fields(fields))
    assert told.reason is Reason.INVALID_ARGUMENT
    assert told.fields == fields
    assert told.retry_after_s is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Reason.UNAVAILABLE),
        (grpc.StatusCode.CANCELLED, Reason.UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.REQUEST_TOO_LARGE),
        (grpc.StatusCode.UNKNOWN, Reason.INTERNAL),
    ],
)
@pytest.mark.parametrize("details", [None, b"\xff\xff no status"])
def test_an_error_of_the_transport_becomes_a_failure_without_its_text(code: grpc.StatusCode, reason: Reason, details: bytes | None) -> None:
    metadata = Metadata() if details is None else Metadata((STATUS_DETAILS_KEY, details))
    told = failure_from_rpc(AioRpcError(code, Metadata(), metadata, details="ipv4:10.0.0.7:50051 refused"))
    assert told.reason is reason
    assert "10.0.0.7" not in told.message
