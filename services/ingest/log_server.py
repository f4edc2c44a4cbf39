"""Log server: EventLogService over gRPC, which lets the other services read the log.

event log → [log_server] ─gRPC─▶ delivery, gateway
"""

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
from hooktide.ingest.v1 import event_log_pb2, event_log_pb2_grpc

from services.eventlog.errors import AnotherLogError, EventLogError, PositionMismatchError, StorageFullError
from services.eventlog.filtered_read import BYTES_MAX, EXAMINED_MAX, RECORDS_MAX, ReadQuery
from services.eventlog.history import EventQuery
from services.eventlog.protocol import EventAppender, EventLog
from services.eventlog.record import PARTITIONS, ShardPosition, SlotProgress, partition_of_event_id
from services.eventlog.wire import (
    add_records,
    read_response,
    record_message,
    resume_point_message,
    shard_position_from,
    shard_position_message,
)
from services.runtime.errors import Failure, FieldError, Reason, invalid_field
from services.runtime.event_types import event_type_pattern_problem
from services.runtime.ids import SLOTS, is_id
from services.runtime.paging import page_size, page_token, parse_page_token
from services.runtime.rpc.access import Access
from services.runtime.rpc.requested_scope import requested_scope
from services.runtime.rpc.timestamps import optional_ms

RULES = {
    f"/hooktide.ingest.v1.EventLogService/{name}": Access.SERVICE
    for name in ("FollowLog", "ReadLog", "FetchEvents", "ReportProgress", "GetEvent", "ListEvents", "FindResumePoints", "GetReadiness")
}
_BATCH_RECORDS_DEFAULT = 500
_BATCH_RECORDS_MAX = 2000
_FETCH_MAX = 1000
# How many types, and how many audiences, one filtered read may name.
_FILTERS_MAX = 100

Context = grpc.aio.ServicerContext[Any, Any]


class EventLogServer(event_log_pb2_grpc.EventLogServiceServicer):
    """Answers the services that read events."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    async def FollowLog(self, request: event_log_pb2.FollowLogRequest, context: Context) -> AsyncIterator[event_log_pb2.FollowLogResponse]:
        """Stream records after a place."""
        del context
        after = _place(request.after, "after")
        slots = _slots(request.slots, "slots")
        batch_max = min(request.batch_records_max, _BATCH_RECORDS_MAX) if request.batch_records_max > 0 else _BATCH_RECORDS_DEFAULT
        try:
            async with self._log.follow(after, slots=slots, log_id=request.log_id, batch_records_max=batch_max) as following:
                heads = [event_log_pb2.ShardPosition(shard=shard, position=position) for shard, position in following.heads.items()]
                first = event_log_pb2.FollowLogResponse(heads=heads, log_id=following.log_id)
                first.retention.FromNanoseconds(round(following.retention_s * 1e9))
                yield first
                async for records in following.batches():
                    response = event_log_pb2.FollowLogResponse()
                    add_records(response.records, records)
                    yield response
        except AnotherLogError as error:
            raise Failure(Reason.POSITION_MISMATCH, str(error), fields=[FieldError("log_id", "is not the id of this log")]) from error
        except PositionMismatchError as error:
            wrong = set(error.shards)
            fields = [
                FieldError(f"after[{index}]", "is not the event that the log has at this position")
                for index, place in enumerate(after)
                if place.shard in wrong
            ]
            raise Failure(Reason.POSITION_MISMATCH, str(error), fields=fields) from error
        except EventLogError as error:
            raise _unavailable() from error

    async def ReadLog(self, request: event_log_pb2.ReadLogRequest, context: Context) -> event_log_pb2.ReadLogResponse:
        """Return a page of the records in a range that match a filter."""
        del context
        query = _read_query(request)
        with _refusing():
            return read_response(await self._log.read(query))

    async def FetchEvents(self, request: event_log_pb2.FetchEventsRequest, context: Context) -> event_log_pb2.FetchEventsResponse:
        """Return the records at given positions."""
        del context
        if not 1 <= len(request.positions) <= _FETCH_MAX:
            raise invalid_field("positions", f"give 1 to {_FETCH_MAX} positions")
        places = [shard_position_from(message) for message in request.positions]
        with _refusing():
            found, complete = await self._log.fetch_bounded(places)
        return event_log_pb2.FetchEventsResponse(records=[record_message(record) for record in found], truncated=not complete)

    async def ReportProgress(self, request: event_log_pb2.ReportProgressRequest, context: Context) -> event_log_pb2.ReportProgressResponse:
        """Note how far slots are recorded, released, routed or rewound; return what has expired, and how many events are not routed."""
        del context
        rewound = _progress(request.rewound, "rewound")
        progress = _progress(request.progress, "progress")
        routing = [(_place(each.routed, f"routing[{index}].routed"), each.slots) for index, each in enumerate(request.routing)]
        _check_disjoint([slots for _, slots in routing], "routing")
        if not (rewound or progress or routing):
            raise invalid_field("progress", "set `progress`, `routing` or `rewound`")
        response = event_log_pb2.ReportProgressResponse()
        with _refusing():
            if rewound:
                await self._log.rewind(rewound)
            for routed, slots in routing:
                lag = await self._log.report_routed(routed, tuple(slots))
                response.unrouted_events, response.oldest_unrouted_unix_ms = lag.events, lag.oldest_ms or 0
            if progress:
                response.expiring.extend(map(shard_position_message, await self._log.release(progress)))
        return response

    async def FindResumePoints(
        self, request: event_log_pb2.FindResumePointsRequest, context: Context
    ) -> event_log_pb2.FindResumePointsResponse:
        """Return where a reader resumes."""
        del context
        after = _place(request.after, "after")
        for index, position in enumerate(after):
            if position.event_id and not is_id(position.event_id, "evt"):
                raise invalid_field(f"after[{index}].event_id", "is not the id of an event")
        slots = _slots(request.slots, "slots")
        with _refusing():
            log_id, points = await self._log.resume_points(after, slots)
        return event_log_pb2.FindResumePointsResponse(log_id=log_id, points=map(resume_point_message, points))

    async def GetReadiness(self, request: event_log_pb2.GetReadinessRequest, context: Context) -> event_log_pb2.GetReadinessResponse:
        """Return why the log refuses new events; empty if it takes them."""
        del request, context
        return event_log_pb2.GetReadinessResponse(why_not_ready=why_degraded(self._log) or "")

    async def GetEvent(self, request: event_log_pb2.GetEventRequest, context: Context) -> event_log_pb2.GetEventResponse:
        """Return one event, if the caller may see it."""
        del context
        scope = requested_scope(request.consumer_id)
        with _refusing():
            record = await self._log.locate(scope, request.event_id) if _may_be_here(request.event_id) else None
        if record is None:
            raise Failure(Reason.EVENT_NOT_FOUND, "There is no such event, or it is past its retention.")
        return event_log_pb2.GetEventResponse(record=record_message(record))

    async def ListEvents(self, request: event_log_pb2.ListEventsRequest, context: Context) -> event_log_pb2.ListEventsResponse:
        """Return a page of events, the newest first."""
        del context
        scope = requested_scope(request.consumer_id)
        start = parse_page_token("events", request.page_token, (int,))
        query = EventQuery(
            before=None if start is None else int(start[0]),
            limit=page_size(request.page_size),
            scope=scope,
            type=request.type,
            source=request.source,
            start_ms=optional_ms(request, "start_time"),
            end_ms=optional_ms(request, "end_time"),
        )
        with _refusing():
            records, before = await self._log.newest(query)
        token = "" if before is None else page_token("events", (before,))
        return event_log_pb2.ListEventsResponse(records=[record_message(record) for record in records], next_page_token=token)


def why_degraded(log: EventAppender) -> str | None:
    """Return in a sentence why a log refuses new events, though it can be read; None if it takes them."""
    return None if log.why_refusing is None else f"new events are refused: {log.why_refusing}"


def _may_be_here(event_id: str) -> bool:
    """Return whether an event id is well-formed and names a partition of the log."""
    return is_id(event_id, "evt") and partition_of_event_id(event_id) < PARTITIONS


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn the log's errors into failures for the caller."""
    try:
        yield
    except StorageFullError as error:
        raise Failure(Reason.STORAGE_FULL, "The disk is full; free some space.", retry_after_s=5.0) from error
    except EventLogError as error:
        raise _unavailable() from error


def _unavailable() -> Failure:
    return Failure(Reason.UNAVAILABLE, "The event log is closing.", retry_after_s=1.0)


def _read_query(request: event_log_pb2.ReadLogRequest) -> ReadQuery:
    after, through = _place(request.after, "after"), _place(request.through, "through") if request.through else []
    if through and {each.shard for each in through} != {each.shard for each in after}:
        raise invalid_field("through", "name the shards of `after`, or none")
    if request.parts not in {0, 1} or request.part:
        raise invalid_field(
            "parts" if request.parts not in {0, 1} else "part", "must be 0, and `parts` 0 or 1: partitions cannot be divided"
        )
    for field, values in (("types", request.types), ("audiences", request.audiences)):
        if len(values) > _FILTERS_MAX:
            raise invalid_field(field, f"give at most {_FILTERS_MAX}")
    for index, pattern in enumerate(request.types):
        if problem := event_type_pattern_problem(pattern):
            raise invalid_field(f"types[{index}]", problem)
    return ReadQuery(
        after,
        through,
        tuple(request.types),
        request.source,
        tuple(request.audiences),
        records_max=_at_most(request.records_max, RECORDS_MAX),
        bytes_max=_at_most(request.bytes_max, BYTES_MAX),
        examined_max=_at_most(request.examined_max, EXAMINED_MAX),
    )


def _at_most(asked: int, greatest: int) -> int:
    """Return a bound that a caller asks for; 0 or less: the greatest value, which is also the default."""
    return min(asked, greatest) if asked > 0 else greatest


def _place(messages: Sequence[event_log_pb2.ShardPosition], field: str) -> list[ShardPosition]:
    places = [shard_position_from(message) for message in messages]
    if [place.shard for place in places] != [0]:
        raise invalid_field(field, "name the one shard of this log, 0, once")
    if places[0].position < 0:
        raise invalid_field(f"{field}[0].position", "must be 0 or above")
    return places


def _progress(messages: Sequence[event_log_pb2.SlotProgress], field: str) -> list[SlotProgress]:
    progress = []
    for index, message in enumerate(messages):
        recorded = _place(message.recorded, f"{field}[{index}].recorded")
        released = _place(message.released, f"{field}[{index}].released")
        if released[0].position > recorded[0].position:
            raise invalid_field(f"{field}[{index}].released", "must not be beyond `recorded`")
        progress.append(SlotProgress(tuple(message.slots), recorded, released))
    _check_disjoint([each.slots for each in progress], field)
    return progress


def _check_disjoint(groups: Sequence[Sequence[int]], field: str) -> None:
    """Check that every slot is a slot, and that no two groups of slots (an empty one: all) share one."""
    seen: set[int] = set()
    for index, slots in enumerate(groups):
        named = set(_slots(slots, f"{field}[{index}].slots")) or set(range(SLOTS))
        if named & seen:
            raise invalid_field(f"{field}[{index}].slots", "name each slot only once")
        seen |= named


def _slots(slots: Sequence[int], field: str) -> tuple[int, ...]:
    if len(set(slots)) < len(slots) or not all(0 <= slot < SLOTS for slot in slots):
        raise invalid_field(field, f"name slots from 0 to {SLOTS - 1}, each only once; leave it empty for all")
    return tuple(slots)
