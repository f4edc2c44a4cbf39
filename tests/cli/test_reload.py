import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.support.commands import WITHIN_S, clean_environ, running

ENVIRON = {
    "HOOKTIDE_SERVICE_TOKEN": "hts_a-token-for-this-test-only",
    "HOOKTIDE_GATEWAY_LISTEN": "127.0.0.1:0",
    "HOOKTIDE_GATEWAY_ADMIN_LISTEN": "127.0.0.1:0",
    "HOOKTIDE_SUBSCRIPTION_TARGET": "127.0.0.1:1",
}


async def test_sighup_makes_a_service_read_its_settings_file_anew(tmp_path: Path) -> None:
    """A valid file is taken over, an invalid file is refused line by line, and the service goes on."""
    file = tmp_path / "settings.env"
    file.write_text("HOOKTIDE_LOG_LEVEL=info\n")
    environ = clean_environ(**ENVIRON, HOOKTIDE_SETTINGS_FILE=str(file))
    async with running("serve", "gateway", environ=environ) as gateway:
        await gateway.says("service.ready")
        file.write_text("HOOKTIDE_LOG_LEVEL=debug\n")
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.says("event=settings.reloaded changed=HOOKTIDE_LOG_LEVEL")
        file.write_text("HOOKTIDE_LOG_LEVEL=loud\n")
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.says("event=settings.refused")
        ended = await gateway.end(signal.SIGTERM)
        assert ended.code == 0
        assert "Traceback" not in ended.err


async def test_up_hands_sighup_on_to_every_service(tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text("HOOKTIDE_LOG_LEVEL=info\n")
    arguments = ("up", "--data-dir", str(tmp_path / "data"), "--free-ports", "--json")
    async with running(*arguments, environ=clean_environ(HOOKTIDE_SETTINGS_FILE=str(file))) as up:
        await up.json_line()
        file.write_text("HOOKTIDE_LOG_LEVEL=warning\nHOOKTIDE_LOG_LEVL=info\n")
        up.process.send_signal(signal.SIGHUP)
        told = {(await up.says("settings.refused")).partition(":")[0] for _ in range(4)}
        assert told == {"subscription", "ingest", "delivery", "gateway"}
        assert (await up.end(signal.SIGTERM)).code == 0


# Starts a service on a terminal of its own, closes the terminal after the service has reloaded, and prints how the service ended. If
# SIGHUP is ignored, as under `nohup`, the service must reload once more instead, and only then is killed.
ON_A_TERMINAL = """
import os, pathlib, pty, signal, sys, time
folder, disposition = pathlib.Path(sys.argv[1]), int(sys.argv[2])
log, ready = folder / "log", folder / "ready"
pid, terminal = pty.fork()
if pid == 0:
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    signal.signal(signal.SIGHUP, disposition)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "services", "serve", "gateway", "--ready-file", str(ready)])
def until_reloaded(times):
    while log.read_text().count("event=settings.reloaded") < times:
        time.sleep(0.05)
while not ready.exists():
    time.sleep(0.05)
os.kill(pid, signal.SIGHUP)
until_reloaded(1)
os.close(terminal)
if disposition == signal.SIG_IGN:
    until_reloaded(2)
    os.kill(pid, signal.SIGKILL)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize(("disposition", "ended_by"), [(signal.SIG_DFL, signal.SIGHUP), (signal.SIG_IGN, signal.SIGKILL)])
async def test_the_end_of_its_terminal_ends_a_service_unless_nohup_started_it(
    tmp_path: Path, disposition: signal.Handlers, ended_by: signal.Signals
) -> None:
    """While the terminal is there, SIGHUP means a reload; without the terminal, nobody would see the service's output."""
    arguments = ("-P", "-c", ON_A_TERMINAL, str(tmp_path), str(int(disposition)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=clean_environ(**ENVIRON), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(WITHIN_S):
        out, err = await process.communicate()
    assert (out.decode().strip(), err.decode()) == (str(-ended_by), "")
