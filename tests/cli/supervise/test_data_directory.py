import base64
import fcntl
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.cli.defaults import api_key
from services.cli.errors import CommandError
from services.cli.supervise.data_directory import DamagedKeysError, DataDirectory, write_private
from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.configuration.settings_reader import read_settings
from services.runtime.service_process import StartError


@dataclass
class First:
    """The keys of a fresh registry."""

    consumer_id: str = "con_1"
    admin: str = "hkt_a"
    emitter: str = "hkt_e"
    consumer: str = "hkt_c"


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory(tmp_path / "data")
    directory.create()
    return directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_once_and_are_private(directory: DataDirectory) -> None:
    for _ in range(2):
        directory.create_token()
        directory.create_secret_key()
        made = directory.token_file.read_text(), directory.secret_key_file.read_text()
    assert made == (directory.token_file.read_text(), directory.secret_key_file.read_text())
    directory.write_keys(First())
    assert [mode(path) for path in (directory.path, directory.token_file, directory.secret_key_file, directory.keys_file)] == [
        0o700,
        0o600,
        0o600,
        0o600,
    ]


def test_the_services_accept_the_secrets(directory: DataDirectory) -> None:
    directory.create_token()
    directory.create_secret_key()
    settings = read_settings(
        SubscriptionSettings,
        {"HOOKTIDE_SERVICE_TOKEN_FILE": str(directory.token_file), "HOOKTIDE_SECRET_KEY_FILE": str(directory.secret_key_file)},
    )
    assert settings.token().startswith("hts_")
    key_id, encoded = directory.secret_key_file.read_text().strip().split(":")
    assert settings.secret_keys() == {key_id: base64.b64decode(encoded)}


def test_keys_are_read_as_they_were_written(directory: DataDirectory) -> None:
    assert directory.read_keys() is None
    keys = directory.write_keys(First())
    assert directory.read_keys() == keys
    assert [keys.of(role) for role in ("admin", "emitter", "consumer")] == ["hkt_a", "hkt_e", "hkt_c"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"gateway": 1}', '{"gateway": {}}', "\udcff"])
def test_damaged_addresses_count_as_none(directory: DataDirectory, text: str) -> None:
    directory.addresses_file.write_bytes(text.encode(errors="surrogateescape"))
    assert directory.read_addresses() == {}


@pytest.mark.parametrize("kept", [0, 1, 40, -3])
def test_keys_that_are_cut_off_are_called_damaged(directory: DataDirectory, kept: int) -> None:
    directory.write_keys(First())
    directory.keys_file.write_bytes(directory.keys_file.read_bytes()[:kept])
    with pytest.raises(DamagedKeysError, match=r"keys.json is damaged: .*; restore it from a copy, or give --key"):
        directory.read_keys()


@pytest.mark.parametrize(
    "text", ["[]", "null", "7", '{"admin": "hkt_a"}', "\udcff", '{"consumer_id": "", "admin": 1, "emitter": [], "consumer": ""}']
)
def test_anything_else_than_keys_is_called_damaged(directory: DataDirectory, text: str) -> None:
    directory.keys_file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DamagedKeysError, match="is damaged"):
        directory.read_keys()


def test_keys_that_cannot_be_read_are_told_of(directory: DataDirectory) -> None:
    directory.keys_file.mkdir()
    with pytest.raises(
        DamagedKeysError, match="cannot be read: Is a directory; run this command as the user that owns the file, or give --key"
    ):
        directory.read_keys()


def test_a_command_says_that_its_keys_are_damaged_and_takes_one_that_is_given(directory: DataDirectory) -> None:
    directory.keys_file.write_text('{"consumer_id": "con_1", "adm')
    with pytest.raises(CommandError, match="is damaged") as raised:
        api_key("", "emitter", directory.path)
    assert raised.value.code == 2
    assert api_key("hkt_given", "emitter", directory.path) == "hkt_given"


def test_addresses_are_read_by_service(directory: DataDirectory) -> None:
    ingest, gateway = (
        {"listen": "127.0.0.1:1", "admin": "127.0.0.1:2"},
        {"listen": "127.0.0.1:3", "admin": "127.0.0.1:4", "scheme": "https", "admin_scheme": "https"},
    )
    directory.addresses_file.write_text(json.dumps({"ingest": ingest, "gateway": gateway}))
    assert directory.read_addresses() == {"ingest": {**ingest, "scheme": "http", "admin_scheme": "http"}, "gateway": gateway}


def test_a_private_file_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    path.chmod(0o644)
    write_private(path, "after")
    assert (path.read_text(), mode(path)) == ("after", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="--data-dir"):
        DataDirectory(tmp_path / "file" / "data").create()


async def test_a_directory_in_use_names_its_owner(directory: DataDirectory) -> None:
    lock = await directory.lock(pytest.fail)
    try:
        with pytest.raises(StartError, match=f"process {os.getpid()}"):
            await directory.lock(pytest.fail)
    finally:
        os.close(lock)
    os.close(await directory.lock(pytest.fail))


async def test_services_left_by_a_dead_supervisor_are_waited_for(directory: DataDirectory) -> None:
    """A service holds the lock of its supervisor, which is dead: wait until the lock is free."""
    path = directory.path / "supervisor.lock"
    orphan = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(orphan, b"4194304\n")  # above any process id
    fcntl.flock(orphan, fcntl.LOCK_EX)
    told: list[str] = []

    def waiting(text: str) -> None:
        told.append(text)
        os.close(orphan)

    lock = await directory.lock(waiting)
    assert told == ["waiting for the services of an earlier run to end"]
    assert path.read_text() == f"{os.getpid()}\n"
    os.close(lock)
