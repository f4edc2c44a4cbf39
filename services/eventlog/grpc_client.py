"""gRPC client: the event log's remote engine, by which delivery reads the log through ingest.

event log → ingest ─gRPC─▶ [grpc_client] → delivery

Only passing errors (unavailable, overloaded, deadline exceeded) become `LogUnavailableError`; the reader then follows the log again
from its last position.
"""

import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence

import grpc
from hooktide.ingest.v1 import event_log_pb2, event_log_pb2_grpc

from services.eventlog.errors import AnotherLogError, EventLogError, LogUnavailableError, PositionMismatchError
from services.eventlog.filtered_read import ReadPage, ReadQuery
from services.eventlog.history import EventPage, EventQuery
from services.eventlog.record import Lag, Record, ResumePoint, ShardPosition, SlotProgress
from services.eventlog.wire import (
    page_from,
    progress_message,
    read_request,
    record_from,
    resume_point_from,
    shard_position_from,
    shard_position_message,
)
from services.runtime.consumer_scope import Scope
from services.runtime.errors import Failure, Reason, failure_from_rpc
from services.runtime.paging import page_token, parse_page_token
from services.runtime.rpc.access import ServiceToken
from services.runtime.rpc.channel_and_server import service_metadata

_FETCH_MAX = 1000
_POSITION_FIELD = re.compile(r"after\[(\d+)\]")
_PASSING = {Reason.UNAVAILABLE, Reason.DEADLINE_EXCEEDED, Reason.OVERLOADED}

RETRIED = tuple(f"hooktide.ingest.v1.EventLogService/{name}" for name in ("ReadLog", "FetchEvents", "ReportProgress"))


class GrpcEventLogReader:
    """Reads the log of an ingest service."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        service_token: ServiceToken,
        followed: grpc.aio.Channel | None = None,
    ) -> None:
        """Call ingest over `channel`; follow the log over `followed` (by default over the same channel), behind which a relay may be."""
        self._stub = event_log_pb2_grpc.EventLogServiceStub(channel)
        self._followed = event_log_pb2_grpc.EventLogServiceStub(followed or channel)
        self._metadata = service_metadata(service_token)

    @contextlib.asynccontextmanager
    async def follow(
        self, after: Sequence[ShardPosition], *, slots: Sequence[int] = (), log_id: str = "", batch_records_max: int = 500
    ) -> AsyncIterator["GrpcFollowing"]:
        """Follow the log; see `EventReader.follow`."""
        request = event_log_pb2.FollowLogRequest(
            after=map(shard_position_message, after), batch_records_max=batch_records_max, log_id=log_id, slots=slots
        )
        call = self._followed.FollowLog(request, metadata=self._metadata)
        try:
            with _mapped(after):
                responses = aiter(call)
                first = await anext(responses, None)
            if first is None:
                raise LogUnavailableError("ingest ended the stream")
            yield GrpcFollowing(responses, first, after)
        finally:
            # grpc itself never cleans up an abandoned call.
            call.cancel()

    async def read(self, query: ReadQuery) -> ReadPage:
        """Read a page of a filtered range; see `EventReader.read`."""
        with _mapped(()):
            return page_from(await self._stub.ReadLog(read_request(query), metadata=self._metadata))

    async def fetch(self, places: Sequence[ShardPosition]) -> list[Record]:
        """Read records at given places; see `EventReader.fetch`."""
        records: list[Record] = []
        rest = list(places)
        while rest:
            asked, rest = rest[:_FETCH_MAX], rest[_FETCH_MAX:]
            with _mapped(()):
                request = event_log_pb2.FetchEventsRequest(positions=map(shard_position_message, asked))
                answer = await self._stub.FetchEvents(request, metadata=self._metadata)
            found = [record_from(message) for message in answer.records]
            records += found
            if answer.truncated:
                rest = _after(asked, found) + rest
        return records

    async def release(self, progress: Sequence[SlotProgress]) -> list[ShardPosition]:
        """Release records; see `ReaderProgress.release`."""
        with _mapped(()):
            request = event_log_pb2.ReportProgressRequest(progress=map(progress_message, progress))
            answer = await self._stub.ReportProgress(request, metadata=self._metadata)
        return [shard_position_from(message) for message in answer.expiring]

    async def rewind(self, rewound: Sequence[SlotProgress]) -> None:
        """Undo releases; see `ReaderProgress.rewind`."""
        with _mapped(()):
            request = event_log_pb2.ReportProgressRequest(rewound=map(progress_message, rewound))
            await self._stub.ReportProgress(request, metadata=self._metadata)

    async def resume_points(self, after: Sequence[ShardPosition], slots: Sequence[int] = ()) -> tuple[str, list[ResumePoint]]:
        """Find where a reader resumes; see `EventReader.resume_points`."""
        with _mapped(()):
            request = event_log_pb2.FindResumePointsRequest(after=map(shard_position_message, after), slots=slots)
            answer = await self._stub.FindResumePoints(request, metadata=self._metadata)
        return answer.log_id, [resume_point_from(message) for message in answer.points]

    async def report_routed(self, routed: Sequence[ShardPosition], slots: Sequence[int] = ()) -> Lag:
        """Report the events that were routed last; see `ReaderProgress.report_routed`."""
        with _mapped(()):
            routing = event_log_pb2.SlotRouting(slots=slots, routed=map(shard_position_message, routed))
            request = event_log_pb2.ReportProgressRequest(routing=[routing])
            answer = await self._stub.ReportProgress(request, metadata=self._metadata)
        return Lag(answer.unrouted_events, answer.oldest_unrouted_unix_ms or None)


class GrpcEventHistory:
    """Looks up single events in the log of an ingest service: the `EventHistory` of a caller that has a scope."""

    def __init__(self, channel: grpc.aio.Channel, service_token: ServiceToken) -> None:
        self._stub = event_log_pb2_grpc.EventLogServiceStub(channel)
        self._metadata = service_metadata(service_token)

    async def locate(self, scope: Scope, event_id: str) -> Record | None:
        """Return the record of an event id; see `EventHistory.locate`."""
        request = event_log_pb2.GetEventRequest(consumer_id=scope.text, event_id=event_id)
        try:
            return record_from((await self._stub.GetEvent(request, metadata=self._metadata)).record)
        except grpc.aio.AioRpcError as error:
            failure = failure_from_rpc(error)
            if failure.reason is Reason.EVENT_NOT_FOUND:
                return None
            raise _log_error(failure, ()) from error

    async def newest(self, query: EventQuery) -> EventPage:
        """Return a page of records, the newest first; see `EventHistory.newest`."""
        request = event_log_pb2.ListEventsRequest(
            consumer_id=query.scope.text,
            type=query.type,
            source=query.source,
            page_size=query.limit,
            page_token="" if query.before is None else page_token("events", (query.before,)),
        )
        if query.start_ms is not None:
            request.start_time.FromMilliseconds(query.start_ms)
        if query.end_ms is not None:
            request.end_time.FromMilliseconds(query.end_ms)
        with _mapped(()):
            answer = await self._stub.ListEvents(request, metadata=self._metadata)
        next_start = parse_page_token("events", answer.next_page_token, (int,))
        return EventPage([record_from(message) for message in answer.records], None if next_start is None else int(next_start[0]))


class GrpcFollowing:
    """One stream of records."""

    def __init__(
        self,
        responses: AsyncIterator[event_log_pb2.FollowLogResponse],
        first: event_log_pb2.FollowLogResponse,
        after: Sequence[ShardPosition],
    ) -> None:
        self._responses = responses
        self._after = after
        self.log_id = first.log_id
        self.retention_s = first.retention.ToNanoseconds() / 1e9
        self.heads = {head.shard: head.position for head in first.heads}

    async def batches(self) -> AsyncIterator[Sequence[Record]]:
        """Yield records as they come; see `Following.batches`."""
        with _mapped(self._after):
            async for response in self._responses:
                yield [record_from(message) for message in response.records]
        raise LogUnavailableError("ingest ended the stream")


def _after(asked: Sequence[ShardPosition], found: Sequence[Record]) -> list[ShardPosition]:
    """Return the positions after the last record found. The records are in the order of the positions; some may have no record."""
    places = iter(asked)
    for record in found:
        next(place for place in places if (place.shard, place.position) == (record.shard, record.position))
    return list(places)


@contextlib.contextmanager
def _mapped(after: Sequence[ShardPosition]) -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _log_error(failure_from_rpc(error), after) from error


def _log_error(failure: Failure, after: Sequence[ShardPosition]) -> EventLogError:
    if failure.reason is Reason.POSITION_MISMATCH and [field.field for field in failure.fields] == ["log_id"]:
        return AnotherLogError(failure.message)
    if failure.reason is Reason.POSITION_MISMATCH:
        matches = [match for field in failure.fields if (match := _POSITION_FIELD.fullmatch(field.field))]
        if matches:
            return PositionMismatchError([after[int(match[1])].shard for match in matches])
    if failure.reason in _PASSING:
        return LogUnavailableError(failure.message)
    return EventLogError(f"{failure.reason.name}: {failure.message}")
