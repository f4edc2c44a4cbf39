from tests.cli.conftest import Up
from tests.support.commands import hooktide


async def test_what_answers_but_is_no_api_is_said_in_words(up: Up) -> None:
    """The port is another service's, which does not speak HTTP."""
    ingest = up.told["addresses"]["ingest"]["listen"]
    ended = await hooktide("subscribe", "http://127.0.0.1:9/", "--key", "k", "--api", f"http://{ingest}")
    assert (ended.code, ended.out) == (1, "")
    assert f"no answer from http://{ingest} (the server does not speak HTTP); check that `hooktide up` runs" in ended.err
    assert ended.err.count("\n") == 1
