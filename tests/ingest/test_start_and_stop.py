import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hooktide.ingest.v1 import event_log_pb2 as pb

from services.ingest.app import running
from services.runtime.database_files import FileGoneError
from services.runtime.errors import Failure, Reason, failure_from_rpc
from services.runtime.rpc.channel_and_server import DRAIN_S
from services.runtime.service_process import ServiceProcess, StartError, serve_until_stopped
from tests.ingest.world import TIMEOUT_S, Following, World, answer, ended, message, positions, rest, running_world
from tests.support.events import cloud_event
from tests.support.storage_faults import files_bounded, take_away
from tests.support.system.registry import refused
from tests.support.waiting import until

EVERYTHING = [pb.ShardPosition()]


async def lost(following: Following) -> Failure:
    """Read on until the log is lost; return why."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            try:
                assert isinstance(await following.read(), pb.FollowLogResponse)
            except grpc.aio.AioRpcError as error:
                return failure_from_rpc(error)


async def test_a_stop_answers_what_was_read_and_ends_every_stream(tmp_path: Path) -> None:
    """The stop is quick: it waits neither for an idle emitter nor for a follower."""
    async with running_world(tmp_path) as world, world.stream() as busy, world.stream() as idle:
        async with world.follow(pb.FollowLogRequest(after=EVERYTHING)) as following:
            await following.read()
            await idle.write(message(cloud_event()))
            await answer(idle)
            for _ in range(10):
                await busy.write(message(*(cloud_event() for _ in range(100))))
            await answer(busy)
            started = time.monotonic()
            stopping = asyncio.ensure_future(world.stop_ingest_service())
            answers = await rest(busy)
            await stopping
            assert time.monotonic() - started < DRAIN_S / 2
            assert all(len(positions(response.results)) == 100 for response in answers)
            assert await ended(busy) is grpc.StatusCode.OK
            assert await ended(idle) is grpc.StatusCode.OK
            assert (await lost(following)).reason is Reason.UNAVAILABLE
        with contextlib.closing(sqlite3.connect(tmp_path / "ingest.db")) as connection:
            assert connection.execute("SELECT count(*) FROM events").fetchone()[0] >= 100 * (len(answers) + 1) + 1


async def test_what_was_acknowledged_is_there_after_a_new_start(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        receipts = [result.receipt for result in await world.publish_batch(cloud_event(str(number)) for number in range(50))]
    async with running_world(tmp_path) as world:
        assert [record.event_id for record in await world.records()] == [receipt.event_id for receipt in receipts]
        again = [result.receipt for result in await world.publish_batch(cloud_event(str(number)) for number in range(50))]
        assert all(receipt.duplicate for receipt in again)
        assert [receipt.event_id for receipt in again] == [receipt.event_id for receipt in receipts]


async def test_health_and_readiness_tell_of_the_stop(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world, aiohttp.ClientSession() as http, asyncio.timeout(TIMEOUT_S):
        states = health_pb2_grpc.HealthStub(world.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await states.read()).status == health_pb2.HealthCheckResponse.SERVING
        for path in ("healthz", "readyz", "metrics"):
            async with http.get(f"http://{world.addresses.admin}/{path}") as response:
                assert response.status == 200
        stopping = asyncio.ensure_future(world.stop_ingest_service())
        assert (await states.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        states.cancel()
        await stopping


async def test_an_input_output_error_ends_the_process(world: World, tmp_path: Path) -> None:
    """No call acknowledges anything after it, and readers get an error that lets them come again."""
    async with world.stream() as call:
        await call.write(message(cloud_event("1")))
        await answer(call)
        with files_bounded((tmp_path / "ingest.db-wal").stat().st_size):
            failure = await refused(world.publish(cloud_event("2")))
            assert failure.reason is Reason.UNAVAILABLE
            await world.process.stopping.wait()
        await call.write(message(cloud_event("3")))
        assert await ended(call) is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(sqlite3.OperationalError):
        world.process.raise_failure()
    assert (await refused(world.publish(cloud_event("4")))).reason is Reason.UNAVAILABLE
    request = pb.ReportProgressRequest(progress=[pb.SlotProgress(recorded=EVERYTHING, released=EVERYTHING)])
    assert (await refused(world.call(world.log.ReportProgress, request))).reason is Reason.UNAVAILABLE
    async with aiohttp.ClientSession() as http, http.get(f"http://{world.addresses.admin}/readyz") as response:
        assert response.status == 503
    assert len(await world.records()) == 1


@pytest.mark.parametrize("how", ["removed", "replaced", "moved"])
async def test_nothing_is_acknowledged_into_a_file_that_is_gone(world: World, tmp_path: Path, how: str) -> None:
    """Only the database is gone: its write-ahead log is where it was. The service stops, and names the file."""
    await world.publish(cloud_event("1"))
    database = tmp_path / "ingest.db"
    take_away(database, how)
    assert (await refused(world.publish(cloud_event("2")))).reason is Reason.UNAVAILABLE
    await world.process.stopping.wait()
    with pytest.raises(FileGoneError, match=f"{database} was removed, replaced or moved"):
        world.process.raise_failure()


async def test_a_full_log_is_degraded_until_there_is_room(tmp_path: Path) -> None:
    """The log is still read, so the service does not report itself as not ready."""
    async with running_world(tmp_path, HOOKTIDE_INGEST_LOG_BYTES_MAX=str(1024 * 1024)) as world, aiohttp.ClientSession() as http:

        async def state() -> tuple[int, str]:
            async with http.get(f"http://{world.addresses.admin}/readyz") as answer:
                body = await answer.json()
            return answer.status, body.get("detail", "")

        assert await state() == (200, "")
        async with asyncio.timeout(TIMEOUT_S):
            while (await world.publish_batch(cloud_event(data=f'"{"x" * 100_000}"') for _ in range(5)))[-1].HasField("receipt"):
                pass
        why = "new events are refused: the event log has reached its size limit"
        assert await state() == (200, why)
        answer = await world.call(world.log.GetReadiness, pb.GetReadinessRequest())
        assert answer.why_not_ready == why
        with contextlib.closing(sqlite3.connect(tmp_path / "ingest.db")) as connection, connection:
            connection.execute("DELETE FROM events")
        async with asyncio.timeout(TIMEOUT_S):
            while await state() != (200, ""):  # noqa: ASYNC110 - it looks by itself, once a second
                await asyncio.sleep(0.05)


async def test_old_events_go_once_they_are_released(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        await world.publish_batch(cloud_event() for _ in range(20))
        place = [pb.ShardPosition(position=20)]
        progress = pb.SlotProgress(recorded=place, released=place)
        await world.call(world.log.ReportProgress, pb.ReportProgressRequest(progress=[progress]))
    settings = {"HOOKTIDE_INGEST_RETENTION_HOURS": "0.0000001", "HOOKTIDE_HOUSEKEEPING_SECONDS": "0.1"}
    async with running_world(tmp_path, **settings) as world, asyncio.timeout(TIMEOUT_S):
        while await world.records():
            pass
        receipt = await world.publish(cloud_event())
        assert receipt.position == 21


async def test_serving_lasts_until_the_stop_and_says_where(world: World, tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    process = ServiceProcess("ingest", ready_file=ready_file)
    await world.stop_ingest_service()
    async with asyncio.TaskGroup() as group:
        group.create_task(serve_until_stopped(running(world.settings, process), process))
        await until(ready_file.exists)
        process.stop()
    assert "listen" in ready_file.read_text()


async def test_a_second_service_does_not_start_on_the_same_log(world: World) -> None:
    with pytest.raises(StartError, match="in use by another process"):
        async with running(world.settings, ServiceProcess("ingest")):
            pytest.fail("it has started")


async def test_an_address_that_is_taken_is_named(world: World, tmp_path: Path) -> None:
    settings = world.settings.model_copy(update={"ingest_listen": world.addresses.listen, "data_dir": tmp_path / "other"})
    with pytest.raises(StartError, match="cannot listen on"):
        async with running(settings, ServiceProcess("ingest")):
            pytest.fail("it has started")


async def test_health_is_told_by_the_name_of_the_service(world: World) -> None:
    health = health_pb2_grpc.HealthStub(world.channel)
    for name in ("", "hooktide.ingest.v1.IngestService", "hooktide.ingest.v1.EventLogService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
