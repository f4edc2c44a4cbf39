"""System: all services with TLS and client certificates everywhere, as an operator would run them."""

import ssl
from pathlib import Path

import aiohttp
import hooktide as client
import pytest

from tests.support.commands import clean_environ, hooktide
from tests.support.system.in_process import SERVICES, accepted, running_system
from tests.support.waiting import until_so
from tests.tls.authority import Authority
from tests.tls.test_http import trusting

OLD, NEW = "hts_the-token-before-the-rotation", "hts_the-token-after-the-rotation"


@pytest.mark.parametrize("workers", [1, 2])
async def test_everything_works_over_mtls_and_goes_on_with_new_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """The flow works from `hooktide subscribe` and emit to the webhook; then every certificate and authority is replaced without a stop."""
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    listeners = (*SERVICES, "admin")
    pairs = {name: ours.issue() for name in (*listeners, "calls")}
    files = {
        f"{name.upper()}_TLS_{part}_FILE": path
        for name in listeners
        for part, path in (("CERT", pairs[name].cert), ("KEY", pairs[name].key))
    }
    files |= {f"{name.upper()}_TLS_CLIENT_CA_FILE": ours.file for name in listeners}
    shown: dict[str, str | Path] = {"TLS_CERT_FILE": pairs["calls"].cert, "TLS_KEY_FILE": pairs["calls"].key}
    shown["DELIVERY_WORKERS"] = str(workers)
    commands = clean_environ(**{f"HOOKTIDE_{name}": str(path) for name, path in shown.items()})
    async with running_system(monkeypatch, tmp_path, **files, **shown, TLS_CA_FILE=ours.file, SERVICE_TOKEN=OLD) as system:
        api, target = f"https://{system.addresses['gateway'].listen}", system.addresses["ingest"].listen
        subscribe = ("subscribe", system.sink, "--api", api, "--key", system.keys.consumer)
        emit = ("emit", "order.created", "--source", "/shop", "--target", target, "--key", system.keys.emitter)
        assert (await hooktide(*subscribe, "--ca", str(ours.file), environ=commands)).code == 0
        untrusted = await hooktide(*subscribe, environ=commands)
        assert (untrusted.code, "the server's certificate is not trusted; name its certificate authority with --ca" in untrusted.err) == (
            1,
            True,
        )
        assert (await hooktide(*emit, "--ca", str(ours.file), environ=commands)).code == 0
        await system.webhook()
        probe = ours.issue()
        admin = [addresses.admin for addresses in system.addresses.values()]
        assert [await status_of(each, trusting(ours, probe)) for each in admin] == [200] * len(SERVICES)
        assert [await status_of(each, trusting(ours)) for each in admin] == [None] * len(SERVICES)
        own = {f"HOOKTIDE_{name.upper()}_ADMIN_LISTEN": addresses.admin for name, addresses in system.addresses.items()}
        own |= {"HOOKTIDE_ADMIN_TLS_CERT_FILE": str(pairs["admin"].cert), "HOOKTIDE_DATA_DIR": str(tmp_path / "none")}

        async def all_ready() -> bool:
            health = await hooktide("health", environ=commands | own)
            return (health.code, health.out.count(" ready\n")) == (0, len(SERVICES) + (workers if workers > 1 else 0))

        # The gateway may have looked at delivery before delivery was ready.
        await until_so(all_ready, what="`hooktide health` finds every service ready")
        for pair in pairs.values():
            pair.replace_by(theirs.issue())
        ours.file.write_bytes(theirs.file.read_bytes())
        await system.reload()
        assert (await hooktide(*emit, "--ca", str(ours.file), environ=commands)).code == 0
        await system.webhook()
        assert [await status_of(each, trusting(theirs, probe)) for each in admin] == [None] * len(SERVICES)
        assert [await status_of(each, trusting(theirs, theirs.issue())) for each in admin] == [200] * len(SERVICES)
        without = await hooktide(*emit, "--ca", str(ours.file), "--timeout", "1", environ=clean_environ())
        assert (without.code, without.err.count("\n")) == (1, 1), without.err


async def status_of(admin: str, context: ssl.SSLContext) -> int | None:
    """Return the status of a readiness probe, None if its connection fails."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"https://{admin}/readyz", ssl=context) as answer:
                return answer.status
        except aiohttp.ClientError:
            return None


async def test_the_service_token_is_replaced_without_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First both tokens are accepted, then the new one is sent, then the old one goes; after each step events arrive."""
    file = tmp_path / "token"
    file.write_text(f"{OLD}\n")
    async with running_system(monkeypatch, tmp_path, SERVICE_TOKEN_FILE=file) as system:
        api = f"http://{system.addresses['gateway'].listen}"
        assert (await hooktide("subscribe", system.sink, "--api", api, "--key", system.keys.consumer, environ=clean_environ())).code == 0
        async with client.Emitter(system.addresses["ingest"].listen, key=system.keys.emitter) as emitter:
            for tokens in ((OLD, NEW), (NEW, OLD), (NEW,)):
                file.write_text("\n".join(tokens))
                for name in SERVICES:
                    await system.reload(name)
                    receipt = await emitter.emit(type="order.created", source="/shop")
                    assert (await system.webhook()).id == receipt.event_id
        assert await accepted(system.addresses["delivery"].listen, NEW)
        assert not await accepted(system.addresses["delivery"].listen, OLD)
