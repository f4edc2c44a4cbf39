import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from services.__main__ import COMPOSITION
from services.cli.supervise import supervisor as module
from services.cli.supervise.service_environment import SERVICES, Ports
from services.cli.supervise.supervisor import Notice, Supervisor
from services.cli.supervise.up_screen import Notices
from services.runtime.service_process import FatalError, StartError
from tests.runtime.reflection_client import asked
from tests.support.commands import clean_environ, hooktide, running
from tests.support.waiting import PATIENCE_S, until, until_so


@contextlib.asynccontextmanager
async def supervising(data_dir: Path, notices: list[Notice] | None = None, **environ: str) -> AsyncIterator[Supervisor]:
    notify = (lambda _notice: None) if notices is None else notices.append
    supervisor = Supervisor(
        data_dir,
        COMPOSITION.bootstrap,
        ports=Ports({}, any_free=True),
        environ=clean_environ(**{"HOOKTIDE_DELIVERY_WORKERS": "1", **environ}),
        notify=notify,
    )
    async with supervisor:
        yield supervisor


async def is_ready(supervisor: Supervisor, service: str) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"http://{supervisor.addresses(service).admin}/readyz") as response:
        return response.status == 200


@pytest.mark.slow
async def test_a_service_that_runs_and_does_not_do_its_work_is_told_of(tmp_path: Path) -> None:
    """Ingest stops when its log is removed. When the operator allows it, ingest begins a new log; delivery does not accept that log."""
    notices: list[Notice] = []

    async def told(kind: str, text: str) -> Notice:
        found: list[Notice] = []
        async with asyncio.timeout(60):
            while not found:
                await asyncio.sleep(0.05)
                found = [notice for notice in notices if notice.kind == kind and text in notice.text]
        return found[0]

    async with supervising(tmp_path, notices) as supervisor:
        assert supervisor.keys is not None
        data = ("--data-dir", str(tmp_path))

        async def emit() -> str:
            ended = await hooktide("emit", "a.b", "--source", "/s", "--data", "1", "--timeout", "30", *data)
            assert ended.code == 0, ended
            return ended.err

        assert await emit() == ""
        (tmp_path / "ingest.db").unlink()
        refused = await hooktide("emit", "a.b", "--source", "/s", "--data", "1", "--timeout", "1", *data)
        assert refused.code == 1, refused
        await told("ended", "exit code 2")
        assert "ingest.db.lock to begin with an empty database" in supervisor.directory.log_file("ingest").read_text()
        (tmp_path / "ingest.db.lock").unlink()
        await emit()
        stopped = await told("not ready", "routing is stopped")
        assert stopped.service == "delivery"
        note = await emit()
        assert "the event waits in the log, because the delivery service is not ready: routing is stopped" in note
        health = await hooktide("health", *data)
        assert health.code == 1
        assert re.search(r"^delivery +not ready: routing is stopped", health.out, re.MULTILINE)
        assert re.search(r"^gateway +degraded: delivery is not ready: routing is stopped", health.out, re.MULTILINE)
        repaired = await hooktide("repair", "--yes", *data)
        assert repaired.code == 0, repaired
        assert (await told("at work again", "is fully ready again")).service == "delivery"
        assert await emit() == ""


async def test_a_killed_service_is_started_again_at_the_same_address(tmp_path: Path) -> None:
    notices: list[Notice] = []
    async with supervising(tmp_path, notices) as supervisor:
        before = {name: (supervisor.addresses(name), supervisor.pid(name)) for name in SERVICES}
        assert len({pid for _, pid in before.values()}) == 4
        described = await asked(supervisor.addresses("ingest").listen, "v1", ServerReflectionRequest(list_services=""))
        assert "hooktide.ingest.v1.IngestService" in {service.name for service in described.list_services_response.service}
        supervisor.kill("ingest")
        await until(lambda: any(notice.kind == "ready again" for notice in notices))
        assert supervisor.addresses("ingest") == before["ingest"][0]
        assert supervisor.pid("ingest") != before["ingest"][1]
        assert await is_ready(supervisor, "ingest")
        assert all(supervisor.pid(name) == before[name][1] for name in SERVICES if name != "ingest")
    told = [notice for notice in notices if notice.kind in {"ended", "ready again"}]
    assert told == [
        Notice("ingest", "ended", "killed by signal 9; it starts again in 0.2 s"),
        Notice("ingest", "ready again", f"running again as process {supervisor.pid('ingest')}"),
    ]
    assert not any(psutil.pid_exists(supervisor.pid(name)) for name in SERVICES)
    assert not supervisor.directory.addresses_file.exists()


async def test_a_data_directory_that_was_moved_away_ends_the_supervisor_with_a_sentence(tmp_path: Path) -> None:
    async with supervising(tmp_path / "data") as supervisor:
        (tmp_path / "data").rename(tmp_path / "moved")
        supervisor.kill("gateway")
        with pytest.raises(FatalError, match=f"^cannot start gateway: {tmp_path / 'data'} was removed or moved; put it back"):
            await asyncio.wait_for(supervisor.run(), PATIENCE_S)


async def test_health_shows_the_delivery_workers_and_a_killed_one_is_told_of_and_started_again(tmp_path: Path) -> None:
    notices: list[Notice] = []
    async with supervising(tmp_path, notices, HOOKTIDE_DELIVERY_WORKERS="2") as supervisor:
        data = ("--data-dir", str(tmp_path))
        await until_so(lambda: says("delivery      ready\n  worker 0    ready\n  worker 1    ready", *data), what="both workers are ready")
        parent = psutil.Process(supervisor.pid("delivery"))
        [worker] = [each for each in parent.children() if "--worker 1" in " ".join(each.cmdline())]
        worker.kill()
        await until(lambda: any("event=worker.ended" in each.text and "worker=1" in each.text for each in notices), what="a notice")
        await until_so(lambda: says("worker 1    ready", *data), what="the worker is back")
        assert supervisor.pid("delivery") == parent.pid
        assert (supervisor.delivery_workers, (tmp_path / "delivery-1.db").exists()) == (2, True)


@pytest.mark.parametrize(("value", "workers"), [("3", 3), (" 3.0 ", 3), ("", 14)])
def test_the_number_of_delivery_workers_is_read_as_the_service_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, workers: int
) -> None:
    """An empty value counts as none, so the cores decide."""
    monkeypatch.setattr(module, "usable_cores", lambda: 16)
    supervisor = Supervisor(tmp_path, COMPOSITION.bootstrap, environ=clean_environ(HOOKTIDE_DELIVERY_WORKERS=value))
    assert supervisor.delivery_workers == workers


async def says(text: str, *data: str) -> bool:
    return text in (await hooktide("health", "delivery", *data)).out


async def test_keys_are_made_on_the_first_start_only(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, COMPOSITION.bootstrap, ports=Ports({}, any_free=True), environ=clean_environ())
    made = await supervisor.start()
    assert made is not None
    assert supervisor.keys == made
    api = supervisor.addresses("gateway").listen
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {made.consumer}"}) as session,
        session.get(f"http://{api}/v1/whoami") as response,
    ):
        assert response.status == 200
        assert made.consumer_id in await response.text()
    with pytest.raises(StartError, match=f"in use by another hooktide \\(process {os.getpid()}\\)"):
        async with supervising(tmp_path):
            pytest.fail("two supervisors over one data directory")
    await supervisor.stop()
    await supervisor.stop()
    made_again = await supervisor.start()
    assert made_again is None
    assert supervisor.keys == made
    await supervisor.stop()


async def test_keys_that_cannot_be_read_any_more_are_told_of(tmp_path: Path) -> None:
    async with supervising(tmp_path) as supervisor:
        supervisor.directory.keys_file.write_text("{")
    async with running("up", "--data-dir", str(tmp_path), "--free-ports") as command:
        await command.says("keys.json is damaged: its content is not the JSON of the first keys; restore it from a copy, or give --key")
        line = await command.line("keys.json")
        assert line == f"No keys can be read from {tmp_path / 'keys.json'}; give the client commands an API key with --key or HOOKTIDE_KEY."
        await command.end(signal.SIGINT)


async def test_an_occupied_port_ends_everything_with_a_clear_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupant:
        port = occupant.getsockname()[1]
        ended = await hooktide("up", "--data-dir", str(tmp_path), "--free-ports", "--port", str(port))
    assert ended.code == 2
    assert re.fullmatch("Starting .*\n", ended.out)
    assert f"hooktide up: gateway: cannot listen on 127.0.0.1:{port}: " in ended.err
    assert "choose another address" in ended.err
    assert "Traceback" not in ended.err


async def test_a_wrong_setting_ends_everything_with_a_clear_message(tmp_path: Path) -> None:
    environ = clean_environ(HOOKTIDE_DELIVERY_IN_FLIGHT_MAX="none")
    ended = await hooktide("up", "--data-dir", str(tmp_path), "--free-ports", environ=environ)
    assert ended.code == 2
    assert "hooktide up: delivery: HOOKTIDE_DELIVERY_IN_FLIGHT_MAX=none: " in ended.err


async def test_an_expiry_that_the_log_cannot_keep_is_refused_at_the_start(tmp_path: Path) -> None:
    """The settings file counts as well, and no service has started."""
    settings = tmp_path / "settings.env"
    settings.write_text("HOOKTIDE_INGEST_RETENTION_HOURS=24\n")
    data = tmp_path / "data"
    environ = clean_environ(HOOKTIDE_SETTINGS_FILE=str(settings), HOOKTIDE_DELIVERY_EXPIRY_HOURS="336")
    ended = await hooktide("up", "--data-dir", str(data), "--free-ports", environ=environ)
    assert ended.code == 2
    assert ended.err == (
        "hooktide up: HOOKTIDE_DELIVERY_EXPIRY_HOURS=336 is longer than the event log keeps events (24 hours); lower it, raise "
        "HOOKTIDE_INGEST_RETENTION_HOURS, or set HOOKTIDE_DELIVERY_EXPIRY_BEYOND_LOG=true\n"
    )
    assert not list(data.glob("*.db"))


async def test_what_the_user_has_set_is_respected(tmp_path: Path) -> None:
    token = "hts_" + "t" * 40
    async with supervising(tmp_path, HOOKTIDE_SERVICE_TOKEN=token, HOOKTIDE_SINK_ALLOW="", HOOKTIDE_LOG_LEVEL="debug") as supervisor:
        assert not supervisor.directory.token_file.exists()
        assert not supervisor.allows_local_sinks
        environ = psutil.Process(supervisor.pid("delivery")).environ()
    assert (environ["HOOKTIDE_SERVICE_TOKEN"], environ["HOOKTIDE_SINK_ALLOW"], environ["HOOKTIDE_LOG_LEVEL"]) == (token, "", "debug")
    assert environ["HOOKTIDE_SECRET_KEY_FILE"] == str(tmp_path / "secret.key")


async def test_where_others_reach_the_api_local_sinks_are_refused_until_they_are_asked_for(tmp_path: Path) -> None:
    at = ("--data-dir", str(tmp_path))
    async with running("up", *at, "--free-ports", "--host", "0.0.0.0") as command:  # noqa: S104 - what is tested
        await command.line("sinks must be public https, because other machines can reach this API")
        await command.line("Next")
        refused = await hooktide("subscribe", "http://127.0.0.1:9999/", *at)
        assert (refused.code, "SINK_FORBIDDEN" in refused.err) == (1, True)
        await command.end(signal.SIGTERM)
    for asked_for in (False, True):
        supervisor = Supervisor(tmp_path, COMPOSITION.bootstrap, host="0.0.0.0", environ={}, allow_local_sinks=asked_for)  # noqa: S104 - as above
        assert supervisor.is_reached_by_others
        assert supervisor.allows_local_sinks is asked_for


def test_a_warning_is_told_in_a_sentence_or_as_the_log_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    line = "timestamp=2030-01-31T12:00:00Z level=warning service=delivery event=circuit_breaker.opened subscription=sub_1 for_s=30.5"
    notices, raw = Notices(raw=False), Notices(raw=True)
    for _ in range(2):
        notices.tell(Notice("delivery", "log", line))
    (told,) = capsys.readouterr().err.splitlines()
    assert told.endswith("  delivery: the circuit breaker of subscription sub_1 opened after failures; the next attempt is in 30.5 s")
    raw.tell(Notice("delivery", "log", line))
    assert capsys.readouterr().err == f"delivery: {line}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_up_says_where_everything_is_and_what_to_do_next_and_a_signal_stops_everything_in_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with running("up", "--data-dir", str(tmp_path), "--free-ports") as command:
        assert (await command.line()).startswith("Starting the subscription, ingest and delivery services and the gateway")
        await command.line("Hooktide is running")
        await command.line("sinks may use http and this machine's addresses")
        await command.line("This is the first start.")
        assert [(await command.line("hkt_")).split()[0] for _ in range(3)] == ["admin", "emitter", "consumer"]
        await command.line(" emit order.created")
        told = "\n".join(command.lines)
        addresses = json.loads((tmp_path / "addresses.json").read_text())
        assert all(at in told for service in addresses.values() for at in service.values())
        assert f"--data-dir {tmp_path}" in told
        assert (
            told.index("subscribe http://127.0.0.1:9000/") < told.index("receive --port 9000 --secret whsec_") < told.index(" emit order")
        )
        assert "\x1b" not in told
        ended = await command.end(number)
    assert (ended.code, ended.err) == (0, "hooktide up: stopping; press Ctrl-C again to stop immediately\n")
    stopped_at = []
    for name in ("gateway", "delivery", "ingest", "subscription"):
        last = (tmp_path / "logs" / f"{name}.log").read_text().splitlines()[-1]
        assert "event=service.stopped" in last
        stopped_at.append(last.split()[0])
    assert stopped_at == sorted(stopped_at)


@pytest.mark.slow
async def test_no_service_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """The next supervisor waits for the services to end, then starts."""
    async with running("up", "--data-dir", str(tmp_path), "--free-ports", "--json") as command:
        await command.json_line()
        services = psutil.Process(command.process.pid).children()
        assert len(services) == 4
        await command.end(signal.SIGKILL)
        async with running("up", "--data-dir", str(tmp_path), "--free-ports", "--json") as successor:
            told = await successor.json_line()
            assert told["first_keys"] is None
            assert not any(service.is_running() and service.status() != psutil.STATUS_ZOMBIE for service in services)
            assert (await successor.end(signal.SIGTERM)).code == 0


async def test_addresses_are_left_for_the_client_commands(tmp_path: Path) -> None:
    async with supervising(tmp_path) as supervisor:
        written = json.loads(supervisor.directory.addresses_file.read_text())
        assert {name: at["listen"] for name, at in written.items()} == {name: supervisor.addresses(name).listen for name in SERVICES}
