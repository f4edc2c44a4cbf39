"""Process: a service as a process, on the event loop that it has in production."""

import signal
from pathlib import Path

import pytest

from tests.support.commands import clean_environ, hooktide, running
from tests.tls.authority import Authority
from tests.tls.test_http import got, trusting

ENVIRON = {
    "HOOKTIDE_SERVICE_TOKEN": "hts_a-token-for-this-test-only",
    "HOOKTIDE_GATEWAY_LISTEN": "127.0.0.1:0",
    "HOOKTIDE_GATEWAY_ADMIN_LISTEN": "127.0.0.1:0",
    "HOOKTIDE_SUBSCRIPTION_TARGET": "127.0.0.1:1",
}


async def test_sighup_gives_a_running_service_new_certificates(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    shown = ours.issue()
    environ = clean_environ(**ENVIRON, HOOKTIDE_GATEWAY_TLS_CERT_FILE=str(shown.cert), HOOKTIDE_GATEWAY_TLS_KEY_FILE=str(shown.key))
    async with running("serve", "gateway", environ=environ) as gateway:
        target = (await gateway.says("service.ready")).partition("listen=")[2].split()[0]
        assert await got(target, trusting(ours), "/healthz") == '{"status":"ok"}\n'
        shown.replace_by(theirs.issue())
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.says("settings.reloaded")
        assert await got(target, trusting(theirs), "/healthz") == '{"status":"ok"}\n'
        assert await got(target, trusting(ours), "/healthz") is None
        shown.key.write_text("none")
        gateway.process.send_signal(signal.SIGHUP)
        assert "HOOKTIDE_GATEWAY_TLS_KEY_FILE" in await gateway.says("settings.refused")
        assert await got(target, trusting(theirs), "/healthz") == '{"status":"ok"}\n'
        ended = await gateway.end(signal.SIGTERM)
        assert (ended.code, "Traceback" in ended.err) == (0, False)


@pytest.mark.parametrize("given", ["GATEWAY_TLS_CERT_FILE", "TLS_CERT_FILE"])
async def test_a_service_does_not_start_with_half_a_pair(tmp_path: Path, given: str) -> None:
    file = {f"HOOKTIDE_{given}": str(Authority(tmp_path, "ours").issue().cert)}
    ended = await hooktide("serve", "gateway", environ=clean_environ(**ENVIRON, **file))
    missing = given.replace("CERT", "KEY")
    assert ended.code == 2
    assert ended.err == f"hooktide gateway: HOOKTIDE_{missing} is missing, but HOOKTIDE_{given} is set; set both or neither\n"
