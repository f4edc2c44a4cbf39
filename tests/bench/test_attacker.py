"""Attacker: its calls must be valid for the attacked service; otherwise the bench would measure how fast nonsense is refused."""

import asyncio
from typing import Any

import grpc
import pytest

from services.runtime.api_key import parse_key
from tests.bench.attacker import ADDRESS, INGEST, KINDS, Job, attack


class _Heard(grpc.GenericRpcHandler):
    """Answers every method, and records method, key and size of each message."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int]] = []
        self.peers: set[str] = set()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        metadata = {key: str(value) for key, value in handler_call_details.invocation_metadata or ()}
        method = str(handler_call_details.method)

        async def answer(message: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            self.peers.add(context.peer())
            self.calls.append((method, metadata.get("authorization", ""), len(message)))
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.mark.parametrize(
    ("kind", "method", "size_bytes"),
    [("wrong keys over gRPC", "Publish", 0), ("compressed bombs to ingest", "PublishBatch", 8_000_000)],
)
async def test_hostile_calls_are_whole_calls(kind: str, method: str, size_bytes: int) -> None:
    """A server without any guard accepts the calls as intended, from the attacker's own address."""
    heard, server = _Heard(), grpc.aio.server(options=[("grpc.max_receive_message_length", 16_000_000)])
    server.add_generic_rpc_handlers([heard])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with asyncio.timeout(60):
            while len(heard.calls) < 3:
                done = await attack(Job(kind, "127.0.0.1", port, 2, 0.3))
    finally:
        await server.stop(None)
    assert done.calls >= 1
    assert {(name, size) for name, _, size in heard.calls} == {(f"/hooktide.ingest.v1.IngestService/{method}", size_bytes)}
    assert all(peer.startswith(f"ipv4:{ADDRESS}:") for peer in heard.peers)
    if kind == "wrong keys over gRPC":
        keys = [authorization.removeprefix("Bearer ") for _, authorization, _ in heard.calls]
        assert all(parse_key(key) is not None for key in keys)
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("kind", KINDS.keys() - INGEST.keys())
async def test_hostile_clients_of_the_gateway_connect_again_when_they_are_cut_off(kind: str) -> None:
    begun = 0

    async def cut_off(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal begun
        begun += 1
        assert writer.get_extra_info("peername")[0] == ADDRESS
        writer.transport.abort()

    async with await asyncio.start_server(cut_off, "127.0.0.1", 0) as server, asyncio.timeout(60):
        while begun < 4:
            await attack(Job(kind, "127.0.0.1", server.sockets[0].getsockname()[1], 2, 0.2))
