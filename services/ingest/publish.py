"""Publish: validate events and append them to the log; each event has its own result.

server → event_validation → [publish] → event log → router
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from services.eventlog.errors import EventLogError, LogFullError, StorageFullError
from services.eventlog.protocol import EventAppender
from services.eventlog.record import Appended, Conflict, NewEvent
from services.ingest.emitter_authorization import EmitterAuthorizer
from services.ingest.event_validation import CloudEvent, EventRefusal, validate_event
from services.runtime.errors import Failure, Reason

EVENTS_MAX = 1000
BYTES_MAX = 4 * 1024 * 1024
_LOG_FULL_RETRY_S = 30.0
_DISK_FULL_RETRY_S = 5.0

Result = Appended | EventRefusal


@dataclass(frozen=True, slots=True)
class ValidatedMessage:
    """A message's events after validation."""

    outcomes: list[NewEvent | EventRefusal]
    """Each event in the form that the log appends, or why it may not enter."""
    events: list[NewEvent]
    """The events that may enter, in order."""


class Publisher:
    """Publishes events for callers that are already authorized."""

    def __init__(self, log: EventAppender, authorizer: EmitterAuthorizer, *, event_bytes_max: int) -> None:
        self._log = log
        self._authorizer = authorizer
        self.event_bytes_max = event_bytes_max
        """The size of the largest event that may enter; the limit may change at any time."""

    async def publish(self, events: Sequence[CloudEvent], *, are_notices: bool = False) -> list[Result]:
        """Append the events that may enter; return one result per event, in order, once the appended events are durable.

        `are_notices`: a service of Hooktide publishes notices (`event_types.py`) and nothing else.
        Raises `Failure` if the message as a whole is wrong, or if the registry or the log is unavailable.
        """
        return await self.append(await self.validate(events, are_notices=are_notices))

    async def validate(self, events: Sequence[CloudEvent], *, are_notices: bool = False) -> ValidatedMessage:
        """Decide which events of a message may enter; see `publish`."""
        if not 1 <= len(events) <= EVENTS_MAX:
            raise batch_too_large()
        outcomes: list[NewEvent | EventRefusal] = []
        without_audience: set[str] = set()
        for event in events:
            try:
                new = validate_event(event, bytes_max=self.event_bytes_max, is_notice=are_notices)
            except EventRefusal as refusal:
                outcomes.append(refusal)
            else:
                outcomes.append(new)
                if not new.audience:
                    without_audience.add(new.type)
        requiring = await self._authorizer.audience_required(without_audience)
        if requiring:
            outcomes = [_refused_without_audience(requiring, new) for new in outcomes]
        accepted = [new for new in outcomes if isinstance(new, NewEvent)]
        if sum([len(event.event) for event in accepted]) > BYTES_MAX:
            raise Failure(Reason.BATCH_TOO_LARGE, f"the events have more than {BYTES_MAX} bytes in total; send fewer events in one message")
        return ValidatedMessage(outcomes, accepted)

    async def append(self, message: ValidatedMessage) -> list[Result]:
        """Append the accepted events, in the order of the calls; return the results of the whole message once they are durable."""
        results = await self._append(message.events)
        if len(results) == len(message.outcomes):
            return results
        appended = iter(results)
        return [next(appended) if isinstance(new, NewEvent) else new for new in message.outcomes]

    async def _append(self, accepted: list[NewEvent]) -> list[Result]:
        try:
            appended = await self._log.append(accepted)
        except LogFullError:
            refusal = EventRefusal(Reason.LOG_FULL, "the event log is full; send the event again later", "", _LOG_FULL_RETRY_S)
            return [refusal] * len(accepted)
        except StorageFullError:
            refusal = EventRefusal(Reason.STORAGE_FULL, "the disk is full; send the event again later", "", _DISK_FULL_RETRY_S)
            return [refusal] * len(accepted)
        except EventLogError as error:
            raise Failure(Reason.UNAVAILABLE, "The event log is unavailable; send the events again.", retry_after_s=1.0) from error
        return [result if isinstance(result, Appended) else _conflict(result) for result in appended]


def batch_too_large() -> Failure:
    """Return the failure of a message with no events or too many."""
    return Failure(Reason.BATCH_TOO_LARGE, f"send 1 to {EVENTS_MAX} events in one message")


def _refused_without_audience(requiring: AbstractSet[str], new: NewEvent | EventRefusal) -> NewEvent | EventRefusal:
    """Refuse an event that names no audience, if its type requires an audience."""
    if isinstance(new, EventRefusal) or new.audience or new.type not in requiring:
        return new
    message = f"events of the type {new.type} must name the consumer that may receive them in the attribute `audience`"
    return EventRefusal(Reason.AUDIENCE_REQUIRED, message, "attributes.audience")


def _conflict(conflict: Conflict) -> EventRefusal:
    message = f"a different event with this source and id was accepted before, as {conflict.event_id}; give each event its own id"
    return EventRefusal(Reason.EVENT_ID_CONFLICT, message, "id")
