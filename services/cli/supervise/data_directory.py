"""Data directory: the files that `hooktide up` keeps beside the services' databases.

::

    service.token   the token by which services authenticate each other  keys.json        the first keys, for the client commands
    secret.key      encrypts the signing secrets                         addresses.json   the addresses of the running services
    logs/           one log for each service                             run/             a file for each service that is ready

Only their owner can read files that hold secrets. One supervisor at a time holds a directory.
"""

import asyncio
import base64
import fcntl
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.cli.composition import FirstKeys
from services.runtime.rpc.access import new_service_token
from services.runtime.service_process import StartError

_SECRET_KEY_BYTES = 32
_LOCK_POLL_S = 0.1
ORPHANS_WAIT_S = 40.0


@dataclass(frozen=True, slots=True)
class Keys:
    """The first keys, in clear, as in keys.json."""

    consumer_id: str
    admin: str
    emitter: str
    consumer: str

    def of(self, role: str) -> str:
        """Return the key of a role."""
        return {"admin": self.admin, "emitter": self.emitter, "consumer": self.consumer}[role]


class DamagedKeysError(Exception):
    """The file of the first keys exists and cannot be used; the message is one line that says what to do."""

    def __init__(self, file: Path, why: str, cure: str = "restore it from a copy") -> None:
        super().__init__(f"{file} {why}; {cure}, or give --key or HOOKTIDE_KEY (POST /v1/keys with an admin key creates other keys)")


class DataDirectory:
    """One data directory, by its absolute path."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def token_file(self) -> Path:
        """The file of the service token."""
        return self.path / "service.token"

    @property
    def secret_key_file(self) -> Path:
        """The file of the keys that encrypt secrets at rest."""
        return self.path / "secret.key"

    @property
    def keys_file(self) -> Path:
        """The file of the first API keys."""
        return self.path / "keys.json"

    @property
    def addresses_file(self) -> Path:
        """The file of the addresses in use; it exists while the services run."""
        return self.path / "addresses.json"

    def log_file(self, service: str) -> Path:
        """Return the log of a service."""
        return self.path / "logs" / f"{service}.log"

    def ready_file(self, service: str) -> Path:
        """Return the file that a service writes once it takes work."""
        return self.path / "run" / f"{service}.ready"

    def create(self) -> None:
        """Make the directory and its folders; raises `StartError` if that fails."""
        try:
            for folder in (self.path, self.path / "logs", self.path / "run"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            message = f"cannot create {self.path}: {error.strerror}; choose another directory with --data-dir"
            raise StartError(message) from error

    def create_token(self) -> None:
        """Make the service token, unless it exists."""
        if not self.token_file.exists():
            write_private(self.token_file, new_service_token() + "\n")

    def create_secret_key(self) -> None:
        """Make the first secret key, unless it exists; raises `StartError` if it is missing beside a registry that needs it."""
        if not self.secret_key_file.exists():
            registry = self.path / "subscription.db"
            if registry.exists():
                message = f"{self.secret_key_file} is missing, and {registry} cannot be read without it; restore the file"
                raise StartError(message)
            key = base64.b64encode(secrets.token_bytes(_SECRET_KEY_BYTES)).decode()
            write_private(self.secret_key_file, f"k1:{key}\n")

    def write_keys(self, first: FirstKeys) -> Keys:
        """Write the first keys for the client commands."""
        keys = Keys(first.consumer_id, first.admin, first.emitter, first.consumer)
        write_private(
            self.keys_file,
            json.dumps({"consumer_id": keys.consumer_id, "admin": keys.admin, "emitter": keys.emitter, "consumer": keys.consumer}, indent=2)
            + "\n",
        )
        return keys

    def read_keys(self) -> Keys | None:
        """Return the first keys, None if there is no such file; raises `DamagedKeysError` if it holds anything but keys."""
        try:
            keys = json.loads(self.keys_file.read_bytes())
            if all(isinstance(keys[name], str) and keys[name] for name in ("consumer_id", "admin", "emitter", "consumer")):
                return Keys(**keys)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedKeysError(
                self.keys_file, f"cannot be read: {error.strerror}", "run this command as the user that owns the file"
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedKeysError(self.keys_file, "is damaged: its content is not the JSON of the first keys") from error
        raise DamagedKeysError(self.keys_file, "is damaged: a key is missing")

    def read_addresses(self) -> dict[str, dict[str, str]]:
        """Return {"listen": …, "admin": …, "scheme": "http" or, with TLS, "https", "admin_scheme": …} for each running service.

        The result is empty if no addresses are known.
        """
        try:
            return {
                str(name): {
                    "listen": str(at["listen"]),
                    "admin": str(at["admin"]),
                    "scheme": str(at.get("scheme", "http")),
                    "admin_scheme": str(at.get("admin_scheme", "http")),
                }
                for name, at in _object(self.addresses_file)
            }
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    async def lock(self, waiting: Callable[[str], None]) -> int:
        """Lock the directory and return the lock's file descriptor.

        The services inherit the lock. So if a supervisor was killed, the next one waits for its services before it opens their databases
        anew; it calls `waiting` with a sentence about that. Raises `StartError` while another supervisor runs.
        """
        file = self.path / "supervisor.lock"
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = f"cannot write {file}: {error.strerror}; choose another directory with --data-dir"
            raise StartError(message) from error
        try:
            await self._locked(descriptor, waiting)
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    async def _locked(self, descriptor: int, waiting: Callable[[str], None]) -> None:
        told = False
        for _ in range(int(ORPHANS_WAIT_S / _LOCK_POLL_S)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                if owner.isdigit() and _is_alive(int(owner)):
                    message = (
                        f"{self.path} is in use by another hooktide (process {owner}); stop that process, or choose another "
                        "directory with --data-dir"
                    )
                    raise StartError(message) from None
                if not told:
                    waiting("waiting for the services of an earlier run to end")
                    told = True
                await asyncio.sleep(_LOCK_POLL_S)
            else:
                return
        message = (
            f"the services of an earlier run still use {self.path} after {ORPHANS_WAIT_S:g} s; stop them, or choose another "
            "directory with --data-dir"
        )
        raise StartError(message)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; a reader sees either the whole old text or the whole new text."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _object(path: Path) -> list[tuple[str, dict[str, object]]]:
    value = json.loads(path.read_text())
    if not isinstance(value, dict):
        raise TypeError
    return list(value.items())


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
