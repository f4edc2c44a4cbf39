from pathlib import Path

from services.cli.supervise.data_directory import DataDirectory
from tests.cli.conftest import Up
from tests.support.commands import clean_environ, hooktide


async def test_flags_and_variables_come_before_what_up_has_left(up: Up, tmp_path: Path) -> None:
    """In an empty data directory the user must give everything; HOOKTIDE_API and HOOKTIDE_KEY work as well as the flags."""
    keys = DataDirectory(up.data_dir).read_keys()
    assert keys is not None
    environ = clean_environ(HOOKTIDE_API=up.api, HOOKTIDE_KEY=keys.consumer, HOOKTIDE_DATA_DIR=str(tmp_path))
    subscribed = await hooktide("subscribe", "http://127.0.0.1:9999/", "--type", "no.such", "--json", environ=environ)
    assert subscribed.code == 0, subscribed
    refused = await hooktide(
        "unsubscribe", subscribed.json["id"], "--key", keys.emitter, "--api", f"{up.api}/", "--data-dir", str(tmp_path)
    )
    assert (refused.code, "ROLE_FORBIDDEN 403" in refused.err) == (1, True)
    file = tmp_path / "key"
    file.write_text(f"{keys.consumer}\n")
    from_file = clean_environ(HOOKTIDE_API=up.api, HOOKTIDE_KEY_FILE=str(file), HOOKTIDE_DATA_DIR=str(tmp_path))
    assert (await hooktide("unsubscribe", subscribed.json["id"], environ=from_file)).code == 0
    file.unlink()
    missing = await hooktide("unsubscribe", subscribed.json["id"], environ=from_file)
    assert (missing.code, f"HOOKTIDE_KEY_FILE={file}: the file cannot be read" in missing.err) == (2, True)
