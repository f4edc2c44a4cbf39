import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2 as pb

from services.runtime.rpc.access import Access
from services.runtime.rpc.channel_and_server import Server
from tests.runtime.reflection_client import asked

INGEST = "hooktide.ingest.v1.IngestService"
VERSIONS = ("v1", "v1alpha")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_server_describes_its_services_if_it_is_told_to(version: str) -> None:
    server = Server({f"/{INGEST}/Publish": Access.KEY}, "hts_a-token-for-this-test-only", reflection=True)
    target = await server.start("127.0.0.1:0")
    listed = await asked(target, version, pb.ServerReflectionRequest(list_services=""))
    assert {INGEST, "grpc.health.v1.Health"} <= {service.name for service in listed.list_services_response.service}
    described = await asked(target, version, pb.ServerReflectionRequest(file_containing_symbol=INGEST))
    assert any(b"PublishStreamRequest" in file for file in described.file_descriptor_response.file_descriptor_proto)
    await server.stop(0.1)


@pytest.mark.parametrize("version", VERSIONS)
async def test_and_otherwise_it_does_not(version: str) -> None:
    server = Server({f"/{INGEST}/Publish": Access.KEY}, "hts_a-token-for-this-test-only")
    target = await server.start("127.0.0.1:0")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asked(target, version, pb.ServerReflectionRequest(list_services=""))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0.1)
