"""Circumstances in which a service cannot start: one line says what to change, and every file stays as it is."""

import asyncio
import contextlib
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.badinput.starting import SERVICES, STORING, refusal, started
from tests.support.commands import clean_environ, hooktide, running
from tests.support.waiting import until_so


def no_database(path: Path) -> None:
    path.write_bytes(b"this was never a database, however long it is. " * 200)


def foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE songs (title TEXT)")
        other.execute("INSERT INTO songs VALUES ('Yesterday')")
        other.commit()


def newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as own:
        own.execute("UPDATE alembic_version SET version_num = rtrim(version_num, '0123456789') || '9999'")
        own.commit()
        own.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def cut_short(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 + 100])


def overwritten(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[4096:8192] = b"\xff" * 4096
    path.write_bytes(whole)


def of_another_service(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as own:
        own.execute("UPDATE alembic_version SET version_num = 'other0001'")
        own.commit()
        own.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@pytest.mark.parametrize("service", STORING)
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (no_database, "file is not a database; restore the file from a backup, or move it away to begin with an empty database"),
        (foreign, "is a database, but not of this service; choose another file, or move this one away"),
        (newer, "was written by a newer version of Hooktide; install that version, or restore a backup made before the upgrade"),
        (of_another_service, "is the database of another Hooktide service; give each service its own HOOKTIDE_*_DATABASE_URL"),
        (cut_short, "restore the file from a backup, or move it away to begin with an empty database"),
        (overwritten, "restore the file from a backup, or move it away to begin with an empty database"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_a_file_that_cannot_serve_is_told_and_left_as_it_is(
    service: str, spoil: Callable[[Path], None], says: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{service}.db"
    if spoil not in {no_database, foreign}:
        async with started(service, tmp_path):
            pass
    spoil(path)
    before = path.read_bytes()
    line = await refusal(service, tmp_path)
    assert str(path) in line
    assert line.endswith(says)
    assert path.read_bytes() == before


@pytest.mark.parametrize("service", STORING)
async def test_the_databases_of_two_services_are_not_mixed_up(service: str, tmp_path: Path) -> None:
    other = STORING[STORING.index(service) - 1]
    async with started(other, tmp_path):
        pass
    line = await refusal(service, tmp_path, **{f"HOOKTIDE_{service.upper()}_DATABASE_URL": f"sqlite:///{tmp_path / other}.db"})
    assert "is the database of another Hooktide service" in line
    async with started(other, tmp_path):
        pass


@pytest.mark.parametrize("service", STORING)
async def test_a_place_where_nothing_can_be_written_is_named(service: str, tmp_path: Path) -> None:
    """The cases: a file in place of the directory, a directory of the kernel's, a directory in place of the file, and no path at all."""
    (tmp_path / "file").write_text("")
    assert f"cannot create {tmp_path / 'file'}" in await refusal(service, tmp_path, HOOKTIDE_DATA_DIR=str(tmp_path / "file"))
    for where in ("/proc", "/sys/kernel"):
        line = await refusal(service, tmp_path, HOOKTIDE_DATA_DIR=where)
        assert where in line
        assert "can be written" in line
    (tmp_path / f"{service}.db").mkdir()
    assert "check that the file and its directory exist and can be written" in await refusal(service, tmp_path)
    url = f"HOOKTIDE_{service.upper()}_DATABASE_URL"
    assert "has no path of a file; write for example sqlite:////" in await refusal(service, tmp_path, **{url: "sqlite:///"})
    assert "only sqlite:///path is supported" in await refusal(service, tmp_path, **{url: "mysql://x"})


@contextlib.contextmanager
def occupied() -> Iterator[str]:
    """Occupy a port; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as occupant:
        yield f"127.0.0.1:{occupant.getsockname()[1]}"


@pytest.mark.parametrize("which", ["LISTEN", "ADMIN_LISTEN"])
@pytest.mark.parametrize("service", SERVICES)
async def test_an_address_that_cannot_be_had_is_named(service: str, which: str, tmp_path: Path) -> None:
    """The address is in use, of another machine, or of no machine; when it is free, the service starts."""
    name = f"HOOKTIDE_{service.upper()}_{which}"
    with occupied() as address:
        line = await refusal(service, tmp_path, **{name: address})
        assert line.startswith(f"cannot listen on {address}: ")
        assert "choose another address" in line
    for elsewhere in ("192.0.2.1:0", "no-such-host.invalid:0"):
        assert f"cannot listen on {elsewhere}: " in await refusal(service, tmp_path, **{name: elsewhere})
    async with started(service, tmp_path, **{name: address}) as addresses:
        assert address in {addresses.listen, addresses.admin}


@pytest.mark.parametrize("service", SERVICES)
async def test_a_unix_socket_that_cannot_be_made_is_named(service: str, tmp_path: Path) -> None:
    listen = f"HOOKTIDE_{service.upper()}_LISTEN"
    assert "cannot listen on unix:/nowhere/at/all" in await refusal(service, tmp_path, **{listen: "unix:/nowhere/at/all"})
    async with started(service, tmp_path, **{listen: f"unix:{tmp_path}/s"}) as addresses:
        assert addresses.listen == f"unix:{tmp_path}/s"
    admin = f"HOOKTIDE_{service.upper()}_ADMIN_LISTEN"
    line = await refusal(service, tmp_path, **{admin: "unix:/x"})
    assert line.startswith(f"{admin}=unix:/x: 'unix:/x' is a Unix socket, and this address must be a TCP address; write host:port")


async def test_a_second_supervisor_leaves_the_first_ones_directory_alone(tmp_path: Path) -> None:
    """A missing secret key also does not lead to a new key, under which the old secrets could not be read."""
    at = ("--data-dir", str(tmp_path / "data"))
    async with running("up", "--free-ports", "--json", *at) as first:
        await first.json_line()
        kept = (tmp_path / "data" / "keys.json").read_bytes()
        second = await hooktide("up", "--free-ports", *at)
        assert second.code == 2
        assert "running" not in second.out
        (line,) = second.err.splitlines()
        assert (
            f"is in use by another hooktide (process {first.process.pid}); stop that process, or choose another directory with --data-dir"
        ) in line

        async def all_are_well() -> bool:
            return (await hooktide("health", *at)).code == 0

        await until_so(all_are_well, what="the first one's services are ready, and the gateway has found them")
        assert (tmp_path / "data" / "keys.json").read_bytes() == kept
        assert (await first.end(signal.SIGINT)).code == 0
    secret = tmp_path / "data" / "secret.key"
    right = secret.read_bytes()
    secret.unlink()
    line = (await hooktide("up", "--free-ports", *at)).err
    assert line.startswith(f"hooktide up: {secret} is missing, and ")
    assert not secret.exists()
    secret.write_text("k1:" + "A" * 43 + "=\n")
    line = (await hooktide("up", "--free-ports", *at)).err
    assert "the key 'k1' differs from the key of this id with which" in line
    secret.write_bytes(right)
    async with started("subscription", tmp_path / "data", HOOKTIDE_SECRET_KEY="", HOOKTIDE_SECRET_KEY_FILE=str(secret)):
        pass


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: (data / "supervisor.lock").mkdir(), "supervisor.lock: Is a directory; choose another directory with --data-dir"),
        (lambda data: (data / "logs").write_text(""), "cannot create"),
        (lambda data: (data / "secret.key").write_text("nonsense"), "secret.key: each key must be <key id>:<base64 of 32 bytes>"),
    ],
    ids=["lock", "logs", "secret key"],
)
async def test_a_data_directory_that_is_not_as_it_was_left_is_told(spoil: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    spoil(tmp_path)
    ended = await hooktide("up", "--free-ports", "--data-dir", str(tmp_path))
    assert ended.code == 2
    assert "running" not in ended.out
    assert says in ended.err
    assert "Traceback" not in ended.err


async def test_standard_input_that_cannot_close_is_told(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", 'exec "$0" -m services serve ingest --until-stdin-closes < /dev/null', sys.executable),
        stderr=asyncio.subprocess.PIPE,
        env=clean_environ(HOOKTIDE_DATA_DIR=str(tmp_path)),
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert err.decode().startswith("hooktide ingest: --until-stdin-closes needs a pipe as standard input")
