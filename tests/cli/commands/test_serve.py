import json
import re
from pathlib import Path

from tests.support.commands import clean_environ, hooktide


async def test_a_misspelt_variable_is_reported(tmp_path: Path) -> None:
    ended = await hooktide("serve", "ingest", environ=clean_environ(HOOKTIDE_INGEST_LISTN="x", HOOKTIDE_KEY="k"), cwd=tmp_path)
    assert (ended.code, ended.err) == (2, "hooktide ingest: HOOKTIDE_INGEST_LISTN is not a setting; did you mean HOOKTIDE_INGEST_LISTEN?\n")


async def test_only_delivery_has_workers_and_at_most_sixteen(tmp_path: Path) -> None:
    ended = await hooktide("serve", "ingest", "--workers", "2", environ=clean_environ(), cwd=tmp_path)
    assert (ended.code, ended.err) == (2, "hooktide: --workers: only the delivery service has workers; leave it out\n")
    ended = await hooktide("serve", "delivery", "--workers", "17", environ=clean_environ(), cwd=tmp_path)
    assert ended.code == 2
    assert re.search(r"--workers.*16", ended.err)


async def test_a_service_runs_alone_and_stops_with_its_input(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    environ = clean_environ(
        HOOKTIDE_SERVICE_TOKEN="hts_" + "x" * 40, HOOKTIDE_INGEST_LISTEN="127.0.0.1:0", HOOKTIDE_INGEST_ADMIN_LISTEN="127.0.0.1:0"
    )
    ended = await hooktide("serve", "ingest", "--ready-file", str(ready), "--until-stdin-closes", environ=environ, cwd=tmp_path)
    assert ended.code == 0
    assert set(json.loads(ready.read_text())) == {"listen", "admin"}
    assert "event=service.stopped" in ended.err
