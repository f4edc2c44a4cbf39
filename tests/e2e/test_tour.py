"""The README's tour, as written: three terminals in one folder, line by line. Only the ports and the keys are replaced."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.commands import Command, clean_environ

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"
SERVICES = ("SUBSCRIPTION", "INGEST", "DELIVERY", "GATEWAY")


class Terminal:
    """A terminal in the folder of the tour, with the command on its PATH, where the tour's first lines put it."""

    def __init__(self, folder: Path, replaced: dict[str, str], environ: dict[str, str]) -> None:
        self._folder = folder
        self._replaced = replaced
        self._environ = environ

    def as_typed(self, line: str) -> str:
        """Return a line of the README with real ports, keys and secrets."""
        for written, here in self._replaced.items():
            line = line.replace(written, here)
        assert "…" not in line, line
        return line

    async def run(self, line: str) -> str:
        """Type a line and return its output."""
        async with self.running(line) as command:
            ended = await command.end()
        assert (ended.code, ended.err) == (0, ""), ended
        return ended.out

    @contextlib.asynccontextmanager
    async def running(self, line: str) -> AsyncIterator[Command]:
        """Type a line that goes on until Ctrl-C."""
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-ec",
            f"exec {typed}" if (typed := self.as_typed(line)).startswith("hooktide") else typed,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self._folder,
            env=self._environ,
        )
        command = Command(process)
        try:
            yield command
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


def blocks() -> dict[str, list[str]]:
    """Return the tour's blocks of code, one list for each language, in order."""
    tour = re.search(r"## Five minutes\n(.*?)\n## ", README.read_text(encoding="utf-8"), re.DOTALL)
    assert tour is not None
    found: dict[str, list[str]] = {}
    for language, code in re.findall(r"```(\w+)\n(.*?)```", tour[1], re.DOTALL):
        found.setdefault(language, []).append(code.replace("\\\n", ""))
    return found


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [holder.getsockname()[1] for holder in holders]


async def test_the_tour_of_the_readme_works_in_three_terminals_as_written(tmp_path: Path) -> None:
    (prepare, up, second, emit, look, unsubscribe), (python,) = blocks()["sh"], blocks()["python"]
    assert 'export PATH="$PWD/.venv/bin:$PATH"' in prepare
    *ports, receiver = free_ports(2 * len(SERVICES) + 1)
    environ = clean_environ(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name, port, admin in zip(SERVICES, ports[::2], ports[1::2], strict=True):
        environ |= {f"HOOKTIDE_{name}_LISTEN": f"127.0.0.1:{port}", f"HOOKTIDE_{name}_ADMIN_LISTEN": f"127.0.0.1:{admin}"}
    replaced = {"9000": str(receiver), ":8080": f":{ports[6]}", ":50052": f":{ports[2]}"}
    terminal = Terminal(tmp_path, replaced, environ)

    async with terminal.running(up.strip()) as running:
        await running.line("Next")
        keys = json.loads((tmp_path / "hooktide-data" / "keys.json").read_text())
        assert all(keys[role] in "\n".join(running.lines) for role in ("admin", "emitter", "consumer"))

        subscribe, receive = second.strip().splitlines()
        subscribed = await terminal.run(subscribe)
        replaced |= {"whsec_…": re.findall(r"whsec_\S+", subscribed)[0], "sub_…": re.findall(r"sub_\S+", subscribed)[0]}
        assert terminal.as_typed(receive) in subscribed, "`subscribe` prints the next line to type"
        async with terminal.running(receive) as received:
            await received.line("Receiving at")
            assert "is durable" in await terminal.run(emit.strip())
            assert "order.created /shop  verified  answered 200" in await received.line("order.created")
            await received.line('{"id": 7}')

            (tmp_path / "emit.py").write_text(python.replace("hkt_…", keys["emitter"]).replace("50052", str(ports[2])))
            assert "Receipt(event_id='evt_" in await terminal.run("python emit.py")
            assert "order.created /shop eu-7  verified  answered 200" in await received.line("order.created")

            replaced["hkt_…"] = keys["consumer"]
            key, *lines = look.strip().splitlines()
            deliveries, events, made = [json.loads(await terminal.run(f"{key}\n{line}")) for line in lines]
            assert {item["event_type"] for item in deliveries["items"]} == {item["event"]["type"] for item in events["items"]}
            assert made["types"] == ["invoice.issued"]
            assert "is deleted" in await terminal.run(unsubscribe.strip())
            assert (await received.end(signal.SIGINT)).code == 0
        assert (await running.end(signal.SIGINT)).code == 0
