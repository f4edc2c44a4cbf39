"""Publish: validate events and append them to the log; each event has its own result.

server → event_validation → [publish] → event log → router
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from hooktide.event.v1 import event_pb2

from services.eventlog.errors import EventLogError, LogFullError, StorageFullError
from services.eventlog.protocol import EventAppender
from services.eventlog.record import Appended, Conflict, NewEvent
from services.ingest.emitter_authorization import Registry
from services.ingest.event_validation import Refusal, accept
from services.runtime.errors import Failure, Reason

EVENTS_MAX = 1000
BYTES_MAX = 4 * 1024 * 1024
_LOG_FULL_RETRY_S = 30.0
_DISK_FULL_RETRY_S = 5.0

Result = Appended | Refusal


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message's events after validation."""

    judged: list[NewEvent | Refusal]
    """Each event in the form that the log appends, or why it may not enter."""
    events: list[NewEvent]
    """The events that may enter, in order."""


class Publisher:
    """Publishes events for callers that are already authorized."""

    def __init__(self, log: EventAppender, registry: Registry, *, event_bytes_max: int) -> None:
        self._log = log
        self._registry = registry
        self.event_bytes_max = event_bytes_max
        """The size of the largest event that may enter; the limit may change at any time."""

    async def publish(self, events: Sequence[event_pb2.CloudEvent]) -> list[Result]:
        """Append the events that may enter; return one result per event, in order, once the appended events are durable.

        Raises `Failure` if the message as a whole is wrong, or if the registry or the log is unavailable.
        """
        return await self.append(await self.accepted(events))

    async def accepted(self, events: Sequence[event_pb2.CloudEvent]) -> Accepted:
        """Decide which events of a message may enter; see `publish`."""
        if not 1 <= len(events) <= EVENTS_MAX:
            raise batch_too_large()
        judged: list[NewEvent | Refusal] = []
        without_audience: set[str] = set()
        for event in events:
            try:
                new = accept(event, bytes_max=self.event_bytes_max)
            except Refusal as refusal:
                judged.append(refusal)
            else:
                judged.append(new)
                if not new.audience:
                    without_audience.add(new.type)
        demanding = await self._registry.audience_required(without_audience)
        if demanding:
            judged = [_refused_if_in(demanding, new) for new in judged]
        accepted = [new for new in judged if isinstance(new, NewEvent)]
        if sum([len(event.event) for event in accepted]) > BYTES_MAX:
            raise Failure(Reason.BATCH_TOO_LARGE, f"the events have more than {BYTES_MAX} bytes together; send fewer in one message")
        return Accepted(judged, accepted)

    async def append(self, accepted: Accepted) -> list[Result]:
        """Append the accepted events, in the order of the calls; return the results of the whole message once they are durable."""
        results = await self._append(accepted.events)
        if len(results) == len(accepted.judged):
            return results
        appended = iter(results)
        return [next(appended) if isinstance(new, NewEvent) else new for new in accepted.judged]

    async def _append(self, accepted: list[NewEvent]) -> list[Result]:
        try:
            appended = await self._log.append(accepted)
        except LogFullError:
            refusal = Refusal(Reason.LOG_FULL, "the event log is full; send the event again later", "", _LOG_FULL_RETRY_S)
            return [refusal] * len(accepted)
        except StorageFullError:
            refusal = Refusal(Reason.STORAGE_FULL, "the disk is full; send the event again later", "", _DISK_FULL_RETRY_S)
            return [refusal] * len(accepted)
        except EventLogError as error:
            raise Failure(Reason.UNAVAILABLE, "The event log is away; send the events again.", retry_after_s=1.0) from error
        return [result if isinstance(result, Appended) else _conflict(result) for result in appended]


def batch_too_large() -> Failure:
    """Return the failure of a message with no events or too many."""
    return Failure(Reason.BATCH_TOO_LARGE, f"send 1 to {EVENTS_MAX} events in one message")


def _refused_if_in(demanding: AbstractSet[str], new: NewEvent | Refusal) -> NewEvent | Refusal:
    """Refuse an event that names no audience, if its type requires an audience."""
    if isinstance(new, Refusal) or new.audience or new.type not in demanding:
        return new
    message = f"events of the type {new.type} must name their consumer in the attribute `audience`"
    return Refusal(Reason.AUDIENCE_REQUIRED, message, "attributes.audience")


def _conflict(conflict: Conflict) -> Refusal:
    message = f"another event of this source and id was accepted before, as {conflict.event_id}; give each event an id of its own"
    return Refusal(Reason.EVENT_ID_CONFLICT, message, "id")
