"""Notice server: NoticeService over gRPC, by which Hooktide's own services publish notices.

delivery ─gRPC─▶ [notice_server] → publish → event_validation → event log

Law: only this service takes types that begin with `hooktide.`, and it takes no others. The service token admits its callers.
"""

from typing import Any

import grpc
from hooktide.ingest.v1 import notice_pb2, notice_pb2_grpc

from services.ingest.publish import Publisher
from services.ingest.server import add_results
from services.runtime.rpc.access import Access

RULES = {"/hooktide.ingest.v1.NoticeService/PublishNotices": Access.SERVICE}

Context = grpc.aio.ServicerContext[Any, Any]


class NoticeServer(notice_pb2_grpc.NoticeServiceServicer):
    """Answers the services that publish notices."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def PublishNotices(self, request: notice_pb2.PublishNoticesRequest, _context: Context) -> notice_pb2.PublishNoticesResponse:
        """Append notices; return one result for each, in order."""
        response = notice_pb2.PublishNoticesResponse()
        add_results(response.results, await self._publisher.publish(request.notices, are_notices=True))
        return response
