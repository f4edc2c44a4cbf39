"""Notice client: publishes notices through ingest, by its service for notices.

notice_publisher → [notice_client] ─gRPC─▶ ingest
"""

from collections.abc import Sequence
from typing import NamedTuple

import grpc
from hooktide.event.v1 import event_pb2
from hooktide.ingest.v1 import notice_pb2, notice_pb2_grpc

from services.delivery.notices.notice import Notice
from services.runtime.errors import Reason, failure_from_rpc
from services.runtime.rpc.access import ServiceToken
from services.runtime.rpc.channel_and_server import service_metadata

_CALL_S = 10.0


class Refusal(NamedTuple):
    """Why ingest has refused a notice."""

    reason: Reason
    message: str


class NoticeClient:
    """Calls of NoticeService."""

    def __init__(self, channel: grpc.aio.Channel, service_token: ServiceToken) -> None:
        self._stub = notice_pb2_grpc.NoticeServiceStub(channel)
        self._metadata = service_metadata(service_token)

    async def publish(self, notices: Sequence[Notice], source: str) -> list[Refusal | None]:
        """Publish 1 to 1000 notices; return for each, in order, why it was refused, or None: it is durable in the log.

        Raises `Failure` if ingest refuses the whole call or gives no answer.
        """
        request = notice_pb2.PublishNoticesRequest(notices=[event_of(each, source) for each in notices])
        try:
            answer = await self._stub.PublishNotices(request, metadata=self._metadata, timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            raise failure_from_rpc(error) from None
        return [Refusal(Reason(each.error.reason), each.error.message) if each.HasField("error") else None for each in answer.results]


def event_of(notice: Notice, source: str) -> event_pb2.CloudEvent:
    """Return the event of a notice."""
    event = event_pb2.CloudEvent(id=notice.id, source=source, spec_version="1.0", type=notice.type, text_data=notice.data.decode())
    event.attributes["audience"].ce_string = notice.consumer_id
    event.attributes["datacontenttype"].ce_string = "application/json"
    event.attributes["time"].ce_timestamp.FromMilliseconds(notice.time_ms)
    if notice.subject:
        event.attributes["subject"].ce_string = notice.subject
    return event
