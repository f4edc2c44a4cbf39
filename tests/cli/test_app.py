import importlib.metadata
from pathlib import Path

import pytest

from tests.support.commands import hooktide


async def test_the_version_is_the_distribution_s() -> None:
    assert (await hooktide("--version")).out == f"hooktide {importlib.metadata.version('hooktide-server')}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ("emit", "a.b", "--source", "/s"),
            2,
            "there is no API key: give --key, HOOKTIDE_KEY or HOOKTIDE_KEY_FILE with a key of the role emitter",
        ),
        (("emit", "a.b", "--source", "/s", "--data", "hello"), 2, "--data is not valid JSON"),
        (("emit", "a.b", "--source", "/s", "--data", "@missing"), 2, "--data: cannot read missing"),
        (
            ("emit", "a.b", "--source", "/s", "--time", "2030-01-31T12:00:00"),
            2,
            "--time: '2030-01-31T12:00:00' is not a time with a time zone",
        ),
        (
            ("emit", "a.b", "--source", "/s", "--key", "k", "--target", "127.0.0.1:9", "--timeout", "0.5"),
            1,
            "127.0.0.1:9: the service did not answer",
        ),
        (("emit", "a.b"), 2, "--source"),
        (("subscribe", "http://127.0.0.1:9/"), 2, "no API key"),
        (("subscribe", "http://127.0.0.1:9/", "--key", "k", "--api", "http://127.0.0.1:9"), 1, "check that `hooktide up` runs"),
        (("receive", "--secret", "nonsense"), 2, "--secret: a signing secret must be whsec_"),
        (("receive", "--secret", "whpk_x"), 2, "--secret: a public key must be whpk_"),
        (("receive", "--secret", "@missing"), 2, "--secret: cannot read missing: No such file or directory"),
        (("receive", "--secret", "@/dev/null"), 2, "--secret: the file /dev/null is empty; write the secret"),
        (("serve", "everything"), 2, "everything"),
        (("serve", "ingest"), 2, "set HOOKTIDE_SERVICE_TOKEN"),
        (("keys",), 2, "set HOOKTIDE_S"),
        (("up", "--json", "--data-dir", "/dev/null/x"), 2, "choose another directory with --data-dir"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
async def test_a_mistake_is_one_clear_line(tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    ended = await hooktide(*arguments, cwd=tmp_path)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err
    assert "Traceback" not in ended.err
