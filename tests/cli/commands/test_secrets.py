from pathlib import Path

from tests.cli.conftest import Up
from tests.support.commands import clean_environ, hooktide


async def test_a_registry_with_one_key_needs_no_older_key(up: Up) -> None:
    told = await hooktide("secrets", "reseal", "--wait", "--json", "--data-dir", str(up.data_dir))
    assert told.code == 0, told
    assert told.json["newest"]
    assert (told.json["older"], told.json["unneeded"]) == ({}, [])
    said = await hooktide("secrets", "reseal", "--data-dir", str(up.data_dir))
    assert (said.code, said.out) == (0, f"All stored secrets are encrypted with the key {told.json['newest']}.\n")


async def test_a_registry_that_gives_no_answer_is_named(tmp_path: Path) -> None:
    environ = clean_environ(HOOKTIDE_SERVICE_TOKEN="hts_" + "x" * 40)
    ended = await hooktide("secrets", "reseal", "--target", "127.0.0.1:9", environ=environ, cwd=tmp_path)
    assert (ended.code, ended.out) == (1, "")
    assert "no answer from 127.0.0.1:9; check that the subscription service runs there" in ended.err


async def test_a_wrong_service_token_is_refused_in_words(up: Up) -> None:
    environ = clean_environ(HOOKTIDE_SERVICE_TOKEN="hts_" + "x" * 40)
    ended = await hooktide("secrets", "reseal", "--data-dir", str(up.data_dir), environ=environ)
    assert (ended.code, ended.out) == (1, "")
    assert "hts_" in ended.err
    assert "x" * 40 not in ended.err
