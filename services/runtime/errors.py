"""Errors: the one error class that crosses a service boundary, and its conversion to a gRPC status and back.

A `Failure` carries a reason from the contract's `ErrorReason`. The status code follows from the reason, so the code that raises it
does not choose one; it adds `retry_after_s` if waiting helps. Any other exception is a bug: the caller gets INTERNAL without its text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hooktide.error.v1 import error_pb2

DOMAIN = "hooktide"
STATUS_DETAILS_KEY = "grpc-status-details-bin"
# gRPC limits metadata to 16 KiB. Only sentences for people are cut to stay below it.
_DETAIL_CHARS_MAX = 400
_FIELDS_MAX = 20

# The canonical status code of each reason; the contract documents the same codes.
_CODES: dict[str, grpc.StatusCode] = {
    "INTERNAL": grpc.StatusCode.INTERNAL,
    "UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "DEADLINE_EXCEEDED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "ROUTE_NOT_FOUND": grpc.StatusCode.UNIMPLEMENTED,
    "METHOD_NOT_ALLOWED": grpc.StatusCode.UNIMPLEMENTED,
    "INVALID_ARGUMENT": grpc.StatusCode.INVALID_ARGUMENT,
    "MALFORMED_BODY": grpc.StatusCode.INVALID_ARGUMENT,
    "UNSUPPORTED_MEDIA_TYPE": grpc.StatusCode.UNIMPLEMENTED,
    "REQUEST_TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "KEY_REQUIRED": grpc.StatusCode.UNAUTHENTICATED,
    "KEY_INVALID": grpc.StatusCode.UNAUTHENTICATED,
    "ROLE_FORBIDDEN": grpc.StatusCode.PERMISSION_DENIED,
    "SERVICE_TOKEN_REQUIRED": grpc.StatusCode.UNAUTHENTICATED,
    "SUBSCRIPTION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "EVENT_TYPE_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "CONSUMER_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "KEY_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "EVENT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "DELIVERY_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ETAG_MISMATCH": grpc.StatusCode.ABORTED,
    "REVISION_COMPACTED": grpc.StatusCode.OUT_OF_RANGE,
    "IDEMPOTENCY_KEY_REUSED": grpc.StatusCode.ALREADY_EXISTS,
    "PAGE_TOKEN_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "SINK_FORBIDDEN": grpc.StatusCode.INVALID_ARGUMENT,
    "EVENT_ID_CONFLICT": grpc.StatusCode.ALREADY_EXISTS,
    "EVENT_TOO_LARGE": grpc.StatusCode.INVALID_ARGUMENT,
    "BATCH_TOO_LARGE": grpc.StatusCode.INVALID_ARGUMENT,
    "AUDIENCE_REQUIRED": grpc.StatusCode.INVALID_ARGUMENT,
    "LOG_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "STORAGE_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "OVERLOADED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "POSITION_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "ALREADY_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "STATE_CONFLICT": grpc.StatusCode.FAILED_PRECONDITION,
    "VERIFICATION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "LOOP_DETECTED": grpc.StatusCode.FAILED_PRECONDITION,
}


class Reason(Enum):
    """The contract's `ErrorReason`: its names without their prefix, and its numbers as values."""

    INTERNAL = error_pb2.ERROR_REASON_INTERNAL
    UNAVAILABLE = error_pb2.ERROR_REASON_UNAVAILABLE
    DEADLINE_EXCEEDED = error_pb2.ERROR_REASON_DEADLINE_EXCEEDED
    ROUTE_NOT_FOUND = error_pb2.ERROR_REASON_ROUTE_NOT_FOUND
    METHOD_NOT_ALLOWED = error_pb2.ERROR_REASON_METHOD_NOT_ALLOWED
    INVALID_ARGUMENT = error_pb2.ERROR_REASON_INVALID_ARGUMENT
    MALFORMED_BODY = error_pb2.ERROR_REASON_MALFORMED_BODY
    UNSUPPORTED_MEDIA_TYPE = error_pb2.ERROR_REASON_UNSUPPORTED_MEDIA_TYPE
    REQUEST_TOO_LARGE = error_pb2.ERROR_REASON_REQUEST_TOO_LARGE
    KEY_REQUIRED = error_pb2.ERROR_REASON_KEY_REQUIRED
    KEY_INVALID = error_pb2.ERROR_REASON_KEY_INVALID
    ROLE_FORBIDDEN = error_pb2.ERROR_REASON_ROLE_FORBIDDEN
    SERVICE_TOKEN_REQUIRED = error_pb2.ERROR_REASON_SERVICE_TOKEN_REQUIRED
    SUBSCRIPTION_NOT_FOUND = error_pb2.ERROR_REASON_SUBSCRIPTION_NOT_FOUND
    EVENT_TYPE_NOT_FOUND = error_pb2.ERROR_REASON_EVENT_TYPE_NOT_FOUND
    CONSUMER_NOT_FOUND = error_pb2.ERROR_REASON_CONSUMER_NOT_FOUND
    KEY_NOT_FOUND = error_pb2.ERROR_REASON_KEY_NOT_FOUND
    EVENT_NOT_FOUND = error_pb2.ERROR_REASON_EVENT_NOT_FOUND
    DELIVERY_NOT_FOUND = error_pb2.ERROR_REASON_DELIVERY_NOT_FOUND
    ETAG_MISMATCH = error_pb2.ERROR_REASON_ETAG_MISMATCH
    REVISION_COMPACTED = error_pb2.ERROR_REASON_REVISION_COMPACTED
    IDEMPOTENCY_KEY_REUSED = error_pb2.ERROR_REASON_IDEMPOTENCY_KEY_REUSED
    PAGE_TOKEN_INVALID = error_pb2.ERROR_REASON_PAGE_TOKEN_INVALID
    SINK_FORBIDDEN = error_pb2.ERROR_REASON_SINK_FORBIDDEN
    EVENT_ID_CONFLICT = error_pb2.ERROR_REASON_EVENT_ID_CONFLICT
    EVENT_TOO_LARGE = error_pb2.ERROR_REASON_EVENT_TOO_LARGE
    BATCH_TOO_LARGE = error_pb2.ERROR_REASON_BATCH_TOO_LARGE
    AUDIENCE_REQUIRED = error_pb2.ERROR_REASON_AUDIENCE_REQUIRED
    LOG_FULL = error_pb2.ERROR_REASON_LOG_FULL
    STORAGE_FULL = error_pb2.ERROR_REASON_STORAGE_FULL
    OVERLOADED = error_pb2.ERROR_REASON_OVERLOADED
    POSITION_MISMATCH = error_pb2.ERROR_REASON_POSITION_MISMATCH
    ALREADY_EXISTS = error_pb2.ERROR_REASON_ALREADY_EXISTS
    STATE_CONFLICT = error_pb2.ERROR_REASON_STATE_CONFLICT
    VERIFICATION_NOT_FOUND = error_pb2.ERROR_REASON_VERIFICATION_NOT_FOUND
    LOOP_DETECTED = error_pb2.ERROR_REASON_LOOP_DETECTED

    @property
    def code(self) -> grpc.StatusCode:
        """The canonical status code of calls that are refused for this reason."""
        return _CODES[self.name]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that is wrong: its path (``subscription.sink``) and what to change."""

    field: str
    description: str


class Failure(Exception):  # noqa: N818 - a noun of the contract; callers receive it as a status
    """The refusal of a call, for a reason that the caller may know.

    `message` is a sentence for people that says what to change. `retry_after_s` is set if waiting helps.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        fields: Sequence[FieldError] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.fields = tuple(fields)
        self.retry_after_s = retry_after_s


def invalid_field(field: str, description: str) -> Failure:
    """Return the failure for one wrong field."""
    return invalid_fields([FieldError(field, description)])


def invalid_fields(fields: Sequence[FieldError]) -> Failure:
    """Return the failure for one or more wrong fields."""
    message = "; ".join(f"{error.field}: {error.description}" for error in fields)
    return Failure(Reason.INVALID_ARGUMENT, message, fields=fields)


def failure_status(failure: Failure) -> status_pb2.Status:
    """Return the `google.rpc.Status` of a failure, with sentences cut so that it fits into metadata."""
    status = status_pb2.Status(code=code_pb2.Code.Value(failure.reason.code.name), message=failure.message[:_DETAIL_CHARS_MAX])
    status.details.append(_packed(error_details_pb2.ErrorInfo(reason=failure.reason.name, domain=DOMAIN)))
    if failure.fields:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(
                field=error.field[:_DETAIL_CHARS_MAX], description=error.description[:_DETAIL_CHARS_MAX]
            )
            for error in failure.fields[:_FIELDS_MAX]
        ]
        status.details.append(_packed(error_details_pb2.BadRequest(field_violations=violations)))
    if failure.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(int(failure.retry_after_s * 1000))
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def _packed(
    detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def failure_from_rpc(error: grpc.aio.AioRpcError) -> Failure:
    """Return the failure that a call's error stands for.

    An error without our details comes from the transport. It becomes UNAVAILABLE, DEADLINE_EXCEEDED, REQUEST_TOO_LARGE or, if its code
    fits none of these, INTERNAL. The transport's text is left out, since it may name addresses.
    """
    status = _status_of(error)
    if status is None:
        return _transport_failure(error.code())
    reason, fields, retry_after_s = Reason.INTERNAL, list[FieldError](), None
    for detail in status.details:
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in Reason.__members__:
            reason = Reason[info.reason]
        elif detail.Unpack(bad):
            fields = [FieldError(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    return Failure(reason, status.message, fields=fields, retry_after_s=retry_after_s)


def _status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    metadata = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in metadata:
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _transport_failure(code: grpc.StatusCode) -> Failure:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Failure(Reason.DEADLINE_EXCEEDED, "The deadline passed before the call was complete; try again.")
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
        return Failure(Reason.UNAVAILABLE, "A service that this call needs is unavailable; try again.", retry_after_s=1.0)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Failure(Reason.REQUEST_TOO_LARGE, "The message is larger than the limit of 4 MiB; send a smaller one.")
    return Failure(Reason.INTERNAL, "The call failed; the reason is in the services' logs.")
