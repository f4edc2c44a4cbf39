"""Consumer: a program that emits; `test_installed` type-checks it as somebody else's project, with only the installed packages."""

import asyncio
import datetime as dt

import grpc
import hooktide
from google.protobuf.timestamp_pb2 import Timestamp
from hooktide.event.v1.event_pb2 import CloudEvent
from hooktide.ingest.v1 import ingest_pb2, ingest_pb2_grpc


async def by_the_emitter() -> str:
    """Return the id of an event, or why it has none."""
    credentials = grpc.ssl_channel_credentials()
    async with hooktide.Emitter("localhost:1", key="hkt_…", credentials=credentials, default=str) as emitter:
        try:
            receipt = await emitter.emit(type="order.created", source="/shop", data={"at": dt.datetime.now(dt.UTC)})
        except hooktide.EmitError as error:
            return error.reason
        event = CloudEvent(id="1", source="/shop", spec_version="1.0", type="order.created")
        event.attributes["time"].ce_timestamp.CopyFrom(Timestamp(seconds=1))
        await emitter.emit_event(event)
    return receipt.event_id


async def by_the_stubs() -> str:
    """Return the id of an event."""
    async with grpc.aio.insecure_channel("localhost:1") as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        answer = await stub.Publish(ingest_pb2.PublishRequest(event=CloudEvent()))
        return answer.receipt.event_id


if __name__ == "__main__":
    asyncio.run(by_the_emitter())
