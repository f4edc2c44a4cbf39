import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from hooktide.ingest.v1 import ingest_pb2
from hooktide.subscription.v1 import access_pb2

from services.runtime.api_key_cache import FRESH_S
from services.runtime.errors import Failure, Reason, failure_from_rpc
from tests.ingest.world import TIMEOUT_S, World, answer, ended, message, running_world
from tests.support.events import cloud_event
from tests.support.system.registry import TOKEN, refused

UNKNOWN = "hkt_" + "0" * 40


async def refused_stream(world: World, key: str) -> Failure:
    """Return the failure with which a stream ends at its first answer."""
    async with world.stream(key=key) as call:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    return failure_from_rpc(caught.value)


async def until_refused(world: World, key: str, taken_for_s: float = TIMEOUT_S) -> Failure:
    """Publish until ingest refuses; fail if it takes an event that began more than `taken_for_s` seconds after the start."""
    first = time.monotonic()
    while True:
        began = time.monotonic()
        try:
            await world.publish(cloud_event(), key=key)
        except grpc.aio.AioRpcError as error:
            return failure_from_rpc(error)
        assert began - first < taken_for_s


async def test_a_key_that_is_none_is_refused(world: World) -> None:
    for key in (UNKNOWN, "hkt_", TOKEN, "x" * 5000):
        for failure in (
            await refused(world.publish(cloud_event(), key=key)),
            await refused(world.publish_batch([cloud_event()], key=key)),
            await refused_stream(world, key),
        ):
            assert failure.reason is Reason.KEY_INVALID
            assert key[:20] not in failure.message
    assert await world.records() == []


async def test_a_call_without_a_key_is_refused(world: World) -> None:
    request = ingest_pb2.PublishRequest(event=cloud_event())
    for metadata in ((), (("authorization", ""),), (("authorization", "Bearer "),), (("authorization", f"Basic {world.emitter}"),)):
        failure = await refused(world.ingest.Publish(request, metadata=metadata, timeout=TIMEOUT_S))
        assert failure.reason is Reason.KEY_REQUIRED


async def test_a_call_with_two_keys_is_refused(world: World) -> None:
    """Whichever key is meant, a proxy in between may have judged the other one."""
    request = ingest_pb2.PublishRequest(event=cloud_event())
    failure = await refused(world.ingest.Publish(request, metadata=(*world.metadata(), *world.metadata()), timeout=TIMEOUT_S))
    assert failure.reason is Reason.KEY_REQUIRED


@pytest.mark.parametrize("role", [access_pb2.ROLE_ADMIN, access_pb2.ROLE_CONSUMER])
async def test_only_emitters_publish(world: World, role: access_pb2.Role.ValueType) -> None:
    key = (await world.key(role)).clear_text
    assert (await refused(world.publish(cloud_event(), key=key))).reason is Reason.ROLE_FORBIDDEN
    assert (await refused(world.publish_batch([cloud_event()], key=key))).reason is Reason.ROLE_FORBIDDEN
    assert (await refused_stream(world, key)).reason is Reason.ROLE_FORBIDDEN


async def test_a_revoked_key_stops_within_2_seconds(world: World) -> None:
    """No call or message of a stream that began later is taken; another key goes on."""
    doomed = await world.key()
    async with world.stream(key=doomed.clear_text) as call:
        await call.write(message(cloud_event()))
        await answer(call)
        await world.publish(cloud_event(), key=doomed.clear_text)
        await world.registry.call(world.registry.access.RevokeKey, access_pb2.RevokeKeyRequest(id=doomed.key.id))
        assert (await until_refused(world, doomed.clear_text, taken_for_s=FRESH_S)).reason is Reason.KEY_INVALID
        await call.write(message(cloud_event()))
        assert await ended(call) is grpc.StatusCode.UNAUTHENTICATED
    await world.publish(cloud_event())


async def test_without_the_registry_events_are_refused_for_now(world: World) -> None:
    """They are refused when the cached answers are too old; when the registry is back, ingest goes on without a restart."""
    async with world.stream() as call:
        await call.write(message(cloud_event()))
        await answer(call)
        await world.stop_registry()
        failure = await until_refused(world, world.emitter)
        assert failure.reason is Reason.UNAVAILABLE
        assert failure.retry_after_s is not None
        await call.write(message(cloud_event()))
        assert await ended(call) is grpc.StatusCode.UNAVAILABLE
    await world.start_registry()
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await world.publish(cloud_event())
                break


async def test_a_registry_that_denies_ingest_is_no_fault_of_the_emitter(tmp_path: Path) -> None:
    """An emitter that gets an error about its credential would give up."""
    async with running_world(tmp_path, HOOKTIDE_SERVICE_TOKEN="hts_not-the-token-of-the-registry") as world:
        assert (await refused(world.publish(cloud_event()))).reason is Reason.UNAVAILABLE


async def test_one_caller_in_a_hurry_does_not_fail_the_others(tmp_path: Path) -> None:
    """All wait for one answer of a registry that gives none, each up to its own deadline."""
    asked = asyncio.Event()

    async def never(_request: bytes, _context: Any) -> bytes:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    registry = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"AuthenticateKeys": grpc.unary_unary_rpc_method_handler(never)}
    registry.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("hooktide.subscription.v1.AccessService", handlers),))
    target = f"127.0.0.1:{registry.add_insecure_port('127.0.0.1:0')}"
    await registry.start()
    async with running_world(tmp_path, HOOKTIDE_SUBSCRIPTION_TARGET=target) as world:
        request = ingest_pb2.PublishRequest(event=cloud_event())
        hurried = world.ingest.Publish(request, metadata=world.metadata(), timeout=0.3)
        await asked.wait()
        started = time.monotonic()
        patient = world.ingest.Publish(request, metadata=world.metadata(), timeout=1.5)
        assert await ended(hurried) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await ended(patient) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started > 1.4
        await registry.stop(None)
