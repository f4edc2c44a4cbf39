"""Emitter: which certificates the emitter client trusts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import hooktide
import pytest

from tests.support import commands
from tests.support.system.in_process import System, running_system
from tests.tls.authority import Authority


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
async def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: Authority) -> AsyncIterator[System]:
    """Services whose ingest listens with TLS."""
    issued = ours.issue()
    token = "hts_a-token-for-this-test-only"
    files = {"INGEST_TLS_CERT_FILE": issued.cert, "INGEST_TLS_KEY_FILE": issued.key, "TLS_CA_FILE": ours.file}
    other = ours.issue()
    files |= {"SUBSCRIPTION_TLS_CERT_FILE": other.cert, "SUBSCRIPTION_TLS_KEY_FILE": other.key}
    async with running_system(monkeypatch, tmp_path, **files, SERVICE_TOKEN=token) as running:
        yield running


async def test_the_emitter_trusts_the_authorities_in_ca_alone(system: System, ours: Authority, tmp_path: Path) -> None:
    target, key = system.addresses["ingest"].listen, system.keys.emitter
    for ca in (ours.file, str(ours.file), ours.file.read_bytes()):
        async with hooktide.Emitter(target, key=key, ca=ca) as emitter:
            assert (await emitter.emit(type="order.created", source="/shop")).event_id
    other = Authority(tmp_path, "theirs")
    async with hooktide.Emitter(target, key=key, ca=other.file, timeout=1, close_timeout=0.1) as emitter:
        with pytest.raises(hooktide.Unavailable):
            await emitter.emit(type="order.created", source="/shop")


async def test_the_blocking_emitter_takes_ca_too(system: System, ours: Authority) -> None:
    def emit() -> str:
        with hooktide.SyncEmitter(system.addresses["ingest"].listen, key=system.keys.emitter, ca=ours.file) as emitter:
            return emitter.emit(type="order.created", source="/shop").event_id

    assert (await asyncio.to_thread(emit)).startswith("evt_")


def test_a_ca_that_would_trust_everybody_or_nobody_is_refused(tmp_path: Path) -> None:
    for nothing in (b"", b"no certificate"):
        with pytest.raises(ValueError, match="ca has no certificate in PEM form; pass the PEM text or file of a certificate authority"):
            hooktide.Emitter("localhost:1", key="hkt_x", ca=nothing)
    with pytest.raises(FileNotFoundError):
        hooktide.Emitter("localhost:1", key="hkt_x", ca=tmp_path / "none")
    with pytest.raises(ValueError, match="pass either ca or credentials, not both"):
        hooktide.Emitter("localhost:1", key="hkt_x", ca=b"x", credentials=grpc.ssl_channel_credentials())


async def test_the_command_line_leaves_a_unix_socket_plain_as_the_listener_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: Authority
) -> None:
    """The option that names an authority makes no difference."""
    issued = ours.issue()
    listen = f"unix:{tmp_path}/ingest.sock"
    files = {"INGEST_TLS_CERT_FILE": issued.cert, "INGEST_TLS_KEY_FILE": issued.key}
    async with running_system(
        monkeypatch, tmp_path, **files, INGEST_LISTEN=listen, SERVICE_TOKEN="hts_a-token-for-this-test-only"
    ) as system:
        emit = ("emit", "order.created", "--source", "/shop", "--target", listen, "--key", system.keys.emitter, "--ca", str(ours.file))
        ended = await commands.hooktide(*emit, environ=commands.clean_environ())
        assert (ended.code, ended.err) == (0, "")
