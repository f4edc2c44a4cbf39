"""`hooktide keys`: how services that are started by hand, for example in containers, get their first keys."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hooktide.subscription.v1 import access_pb2, access_pb2_grpc

from services.runtime.rpc.channel_and_server import open_channel, service_metadata
from tests.support.commands import clean_environ, hooktide, running

ROOT = Path(__file__).parents[3]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
MARK = "#   "
RUN = "docker compose run --rm subscription "


def told_commands() -> list[str]:
    """Return the commands that the head of the compose file tells its reader to type."""
    head = COMPOSE.partition("\nname:")[0]
    return [line.removeprefix(MARK) for line in head.splitlines() if line.startswith(MARK)]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The variables of the subscription service's container, after the reader has typed the commands; a directory replaces the volume."""
    for command in told_commands():
        if not command.startswith("docker "):
            here = command.replace("python3 ", f"{shlex.quote(sys.executable)} ")
            subprocess.run(["/bin/sh", "-c", here], cwd=tmp_path, check=True)  # noqa: S603 - our own file's commands
    given: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]["subscription"]["environment"]
    settings = {
        name: str(value).replace("/run/secrets", str(tmp_path / "secrets")) for name, value in given.items() if name != "ADMIN_PORT"
    }
    free = {name: "127.0.0.1:0" for name in settings if name.endswith("_LISTEN")}
    return clean_environ(**settings | free, HOOKTIDE_DATA_DIR=str(tmp_path / "data"))


async def test_the_compose_file_s_reader_gets_keys_that_its_service_knows(environ: dict[str, str], tmp_path: Path) -> None:
    (command,) = [each.removeprefix(RUN) for each in told_commands() if each.startswith(RUN)]
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    made = await hooktide(*command.split(), "--json", environ=environ)
    assert (made.code, made.err) == (0, "")
    again = await hooktide(*command.split(), environ=environ)
    assert (again.code, again.out) == (1, "")
    assert "the registry has keys already" in again.err

    ready = tmp_path / "ready"
    async with running("serve", "subscription", "--ready-file", str(ready), environ=environ) as service:
        await service.says("service.ready")
        during = await hooktide(*command.split(), environ=environ)
        assert during.code == 2
        assert "is in use by another process; stop that process first" in during.err
        token = (tmp_path / "secrets/service_token").read_text().strip()
        async with open_channel(yaml.safe_load(ready.read_text())["listen"]) as channel:
            stub = access_pb2_grpc.AccessServiceStub(channel)
            for role in ("admin", "emitter", "consumer"):
                request = access_pb2.AuthenticateRequest(key=made.json[role])
                answer = await stub.Authenticate(request, metadata=service_metadata(token), timeout=20)
                assert answer.key.role == access_pb2.Role.Value(f"ROLE_{role.upper()}")
                assert answer.key.consumer_id == (made.json["consumer_id"] if role == "consumer" else "")


async def test_people_are_told_to_keep_them(environ: dict[str, str]) -> None:
    made = await hooktide("keys", environ=environ)
    assert made.out.startswith("These are the first keys.")
    assert made.out.count("hkt_") == 3
