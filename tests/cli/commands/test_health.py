import asyncio
from pathlib import Path

from tests.cli.conftest import Up
from tests.support.commands import clean_environ, hooktide


async def test_health_says_of_each_service_whether_it_takes_work(up: Up, tmp_path: Path) -> None:
    ask = ("health", "--data-dir", str(up.data_dir), "--json")
    ended = await hooktide(*ask)
    async with asyncio.timeout(10):
        while ended.code:  # the gateway asks the others at intervals, so just after the start it may know an older state
            ended = await hooktide(*ask)
    assert (ended.code, ended.json) == (
        0,
        {"ready": True, "services": dict.fromkeys(("subscription", "ingest", "delivery", "gateway"), "ready")},
    )
    environ = clean_environ(HOOKTIDE_INGEST_ADMIN_LISTEN="127.0.0.1:9", HOOKTIDE_DATA_DIR=str(tmp_path))
    ended = await hooktide("health", "ingest", environ=environ)
    assert ended.code == 1
    assert ended.out.startswith("ingest        no answer at 127.0.0.1:9")


async def test_a_client_certificate_that_cannot_be_used_matters_only_over_tls(tmp_path: Path) -> None:
    environ = clean_environ(HOOKTIDE_INGEST_ADMIN_LISTEN="127.0.0.1:9", HOOKTIDE_DATA_DIR=str(tmp_path), HOOKTIDE_TLS_CERT_FILE="none")
    plain = await hooktide("health", "ingest", environ=environ)
    assert plain.out.startswith("ingest        no answer at 127.0.0.1:9")
    refused = await hooktide("health", "ingest", environ=environ | {"HOOKTIDE_ADMIN_TLS_CERT_FILE": "a.pem"})
    assert "HOOKTIDE_TLS_KEY_FILE is missing" in refused.err
    assert "Traceback" not in refused.err
