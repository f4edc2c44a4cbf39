"""Errors: the errors that an emit can raise, and the conversion of a server's answer to one of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from hooktide.error.v1 import error_pb2
from hooktide.event.v1.event_pb2 import CloudEvent

DOMAIN = "hooktide"
STATUS_DETAILS_KEY = "grpc-status-details-bin"
_REASON_PREFIX = "ERROR_REASON_"


class EmitError(Exception):
    """An event was not acknowledged; the message says why and what to change.

    `reason` is a name of the contract's `ErrorReason` without its prefix, or ``EMITTER_CLOSED``. `field` names the wrong attribute, if
    there is one. `retryable` is true if emitting the same event again, unchanged, can succeed. `outcome_unknown` is true if the event was
    sent and may be durable after all; emit `event` again within 24 hours, and it is stored once. `event` is the event of the failed emit;
    it is None if the arguments did not make an event.
    """

    def __init__(
        self, message: str, *, reason: str, field: str | None = None, retryable: bool = False, outcome_unknown: bool = False
    ) -> None:
        super().__init__(message)
        self.reason: Final = reason
        self.field: Final = field
        self.retryable: Final = retryable
        self.outcome_unknown: Final = outcome_unknown
        self.event: CloudEvent | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the error with all its attributes, so that another process can receive it."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[EmitError], args: tuple[object, ...], state: dict[str, object]) -> EmitError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InvalidEvent(EmitError):  # noqa: N818 - named after the fault, as all errors of this client
    """The event breaks a rule of the contract; `field` says where. Change the event."""


class EventConflict(EmitError):  # noqa: N818 - as above
    """Another event with the same `source` and `id` was accepted before; give this event an id of its own."""


class NotAuthorized(EmitError):  # noqa: N818 - as above
    """The key is missing, unknown, expired or revoked, or its role may not publish."""


class Unavailable(EmitError):  # noqa: N818 - as above
    """No answer came within the emitter's timeout, in spite of retries."""


class LogFull(Unavailable):
    """The event log, or its disk, stayed full until the emitter's timeout. The event is not stored."""


class EmitterClosed(EmitError):  # noqa: N818 - as above
    """The emitter was closed before the event was acknowledged."""

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message, reason="EMITTER_CLOSED", retryable=True, outcome_unknown=outcome_unknown)


_KINDS: dict[str, type[EmitError]] = {
    "EVENT_ID_CONFLICT": EventConflict,
    "KEY_REQUIRED": NotAuthorized,
    "KEY_INVALID": NotAuthorized,
    "ROLE_FORBIDDEN": NotAuthorized,
    "SERVICE_TOKEN_REQUIRED": NotAuthorized,
    "LOG_FULL": LogFull,
    "STORAGE_FULL": LogFull,
    "INTERNAL": Unavailable,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": Unavailable,
    "OVERLOADED": Unavailable,
}
# The reasons for answers without a reason of the contract, from the transport and from proxies.
_REASONS: dict[int, str] = {
    code_pb2.OK: "UNAVAILABLE",
    code_pb2.CANCELLED: "UNAVAILABLE",
    code_pb2.UNAVAILABLE: "UNAVAILABLE",
    code_pb2.ABORTED: "UNAVAILABLE",
    code_pb2.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    code_pb2.UNAUTHENTICATED: "KEY_INVALID",
    code_pb2.PERMISSION_DENIED: "ROLE_FORBIDDEN",
    code_pb2.INVALID_ARGUMENT: "INVALID_ARGUMENT",
    code_pb2.RESOURCE_EXHAUSTED: "REQUEST_TOO_LARGE",
    code_pb2.UNIMPLEMENTED: "ROUTE_NOT_FOUND",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A server's refusal of one event or of a whole stream."""

    reason: str
    message: str
    code: int
    field: str | None = None
    retry_after_s: float | None = None

    @property
    def kind(self) -> type[EmitError]:
        """The class of the error that callers get."""
        if self.reason in _KINDS:
            return _KINDS[self.reason]
        return InvalidEvent if self.code == code_pb2.INVALID_ARGUMENT else EmitError

    @property
    def passes(self) -> bool:
        """Whether sending the same event again can succeed."""
        return self.retry_after_s is not None or issubclass(self.kind, Unavailable)

    @property
    def concerns_all(self) -> bool:
        """Whether the service would refuse every other event as well."""
        return issubclass(self.kind, NotAuthorized) or self.reason == "ROUTE_NOT_FOUND"

    def error(self, *, outcome_unknown: bool = False) -> EmitError:
        """Return a new error to raise."""
        message = f"{self.message} The event may or may not be stored; emit the same event again." if outcome_unknown else self.message
        return self.kind(message, reason=self.reason, field=self.field, retryable=self.passes, outcome_unknown=outcome_unknown)


def event_refusal(error: error_pb2.EventError) -> Refusal:
    """Return the refusal of one event."""
    try:
        reason = error_pb2.ErrorReason.Name(error.reason).removeprefix(_REASON_PREFIX)
    except ValueError:
        reason = _REASONS.get(error.code, "INTERNAL")
    return Refusal(
        reason=reason,
        message=error.message or f"The event was refused: {reason}.",
        code=error.code,
        field=error.field or None,
        retry_after_s=error.retry_after.ToMilliseconds() / 1000 if error.HasField("retry_after") else None,
    )


def call_refusal(code: grpc.StatusCode, details: str, trailing: Iterable[tuple[str, str | bytes]]) -> Refusal:
    """Return the refusal for the end of a stream. Any end is a refusal, since events still wait for answers."""
    number: int = code.value[0]
    reason, field, retry_after_s = _REASONS.get(number, "INTERNAL"), None, None
    for detail in _details(trailing):
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason = info.reason
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field or None
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    return Refusal(reason, details or f"The stream ended: {reason}.", number, field, retry_after_s)


def _details(trailing: Iterable[tuple[str, str | bytes]]) -> list[AnyMessage]:
    for key, value in trailing:
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return []
    return []
