"""CLI: what a user of the command line reads after a mistake: one line, in terms of what the user typed."""

from pathlib import Path

import pytest

from tests.badinput.commands import Told, told
from tests.support.system.processes import System

_DEEP = "[" * 10_000 + "]" * 10_000
EMIT = ("emit", "a.b", "--source", "/s", "--target", "127.0.0.1:9", "--key", "hkt_x", "--timeout", "0.2")


def one_line(ended: Told, code: int) -> str:
    """Return the single line with which a command ends."""
    assert (ended.code, ended.out) == (code, ""), ended
    assert "Traceback" not in ended.err
    (line,) = ended.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*EMIT, "--data", "{a: 1}"), "--data is not valid JSON (Expecting property name enclosed in double quotes"),
        ((*EMIT, "--data", "hello"), "a string needs double quotes, for example --data '\"hello\"'"),
        ((*EMIT, "--data", '{"a": 1, "a": 2}'), "--data has the name 'a' twice in one object; keep one"),
        ((*EMIT, "--data", '{"a": NaN}'), "--data has NaN, which is not valid in JSON; use null or a string"),
        ((*EMIT, "--data", "[-Infinity]"), "--data has -Infinity, which is not valid in JSON"),
        ((*EMIT, "--data", _DEEP), "--data is nested too deeply"),
        ((*EMIT, "--data", '"\udcff"'), "--data is not valid UTF-8 at byte 1"),
        ((*EMIT, "--data", "@"), "--data: cannot read"),
        ((*EMIT, "--data", "@/"), "--data: cannot read /: Is a directory"),
        ((*EMIT, "--data", "@/nowhere/at all"), "--data: cannot read /nowhere/at all: No such file or directory"),
        ((*EMIT, "--subject", "\udcff"), "--subject is not UTF-8; check the terminal's encoding"),
        (("emit", "a\udcff", *EMIT[2:]), "TYPE is not UTF-8; check the terminal's encoding"),
        (
            (*EMIT, "--target", "127.0.0.1:99999"),
            "--target: '127.0.0.1:99999' is not a valid address; write host:port, for example 127.0.0.1:50051",
        ),
        ((*EMIT, "--target", "ingest"), "--target: 'ingest' is not a valid address; write host:port"),
        ((*EMIT, "--key", "a key\nof two lines"), "--key: this is not a valid API key; an API key is hkt_"),
        (
            ("subscribe", "http://x", "--key", "hkt_x", "--api", "127.0.0.1:8080"),
            "'127.0.0.1:8080' is not a valid URL; write for example http://",
        ),
        (("subscribe", "http://x", "--key", "hkt_x", "--api", "http://["), "--api: 'http://[' is not a valid URL"),
        (("subscribe", "http://x", "--key", "hkt_x", "--api", "http://h:99999"), "--api: 'http://h:99999' is not a valid URL"),
        (("unsubscribe", "", "--key", "hkt_x"), "ID is empty; give the subscription's id, sub_"),
    ],
    ids=lambda value: repr(value)[-60:] if isinstance(value, str) else None,
)
def test_a_mistake_is_told_before_anybody_is_called(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    line = one_line(told(*arguments, "--data-dir", str(tmp_path)), 2)
    assert line.startswith("hooktide: ")
    assert says in line
    assert len(line) < 300


def test_a_service_that_is_away_is_said_to_be_in_few_words(tmp_path: Path) -> None:
    at = ("--data-dir", str(tmp_path))
    line = one_line(told("subscribe", "http://x", "--key", "hkt_x", "--api", "http://127.0.0.1:9", *at), 1)
    assert line == (
        "hooktide: no answer from http://127.0.0.1:9 (Connection refused); check that `hooktide up` runs, or name another API with --api"
    )
    ended = told("health", "ingest", *at, HOOKTIDE_INGEST_ADMIN_LISTEN="127.0.0.1:9")
    assert (ended.code, ended.out) == (1, "ingest        no answer at 127.0.0.1:9: Connection refused\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--data", '"\\ud800"'), "data: is not valid JSON, although datacontenttype is JSON: no low surrogate in string"),
        (("--data", "[" * 400 + "]" * 400), "data: is nested too deeply; nest it less deeply (INVALID_ARGUMENT)"),
        (
            ("--data", '"' + "x" * 300_000 + '"'),
            "bytes, and the limit is 262144; send a `dataref` instead of the data (EVENT_TOO_LARGE)",
        ),
        (("--data", '"' + "x" * 5_000_000 + '"'), "which is more than one message may have; send a reference to the data instead"),
        (("--id", "x" * 300), "id: is longer than 256 bytes"),
        (("--subject", "a\tb"), "attributes.subject: has control characters"),
        (("--subject", ""), "attributes.subject: is required"),
        (("--audience", "somebody"), "attributes.audience: must be a consumer's id: con_ and 32 hexadecimal digits"),
        (("--key", "hkt_unknown"), "This is not a valid API key: it is incomplete or mistyped; send the whole key. (KEY_INVALID)"),
    ],
    ids=lambda value: repr(value)[:50] if isinstance(value, str) else None,
)
def test_what_the_service_refuses_is_told_in_its_words(system: System, arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    where = ("--target", system.services["ingest"].listen, "--key", system.first.emitter, "--data-dir", str(tmp_path))
    assert says in one_line(told("emit", "a.b", "--source", "/s", *where, *arguments), 1)


def test_a_key_of_another_role_and_an_id_in_use_are_told(system: System, tmp_path: Path) -> None:
    where = ("emit", "a.b", "--source", "/s", "--target", system.services["ingest"].listen, "--data-dir", str(tmp_path))
    line = one_line(told(*where, "--key", system.first.consumer), 1)
    assert "This API key has another role; publish with a key of the role emitter." in line
    assert told(*where, "--key", system.first.emitter, "--id", "7", "--data", "1").code == 0
    line = one_line(told(*where, "--key", system.first.emitter, "--id", "7", "--data", "2"), 1)
    assert "a different event with this source and id was accepted before" in line
    assert "give each event its own id (EVENT_ID_CONFLICT)" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("subscribe", "not a url"), "/sink: the URL has spaces or control characters"),
        (
            ("subscribe", "orders"),
            "/sink: the URL must begin with https:// (or http://, if the operator allows it) (SINK_FORBIDDEN 400)",
        ),
        (("subscribe", "ftp://example.com/"), "/sink: the URL must begin with https://"),
        (("subscribe", "http://10.0.0.1/"), "which is not allowed; use a public address (SINK_FORBIDDEN 400)"),
        (
            ("subscribe", "https://a.example/", "--type", "*.created"),
            "/types/0: must be a name such as order.created, a pattern such as order.*",
        ),
        (
            ("subscribe", "https://a.example/", "--description", "x" * 2000),
            "/config/description: must be at most 1000 characters; this has 2000",
        ),
        (("subscribe", "https://a.example/", "--source", "\udcff"), "--source is not UTF-8"),
        (
            ("subscribe", "https://a.example/", "--key", "hkt_unknown"),
            "This is not a valid API key: it is incomplete or mistyped; send the whole key. (KEY_INVALID 401)",
        ),
        (("unsubscribe", "nonsense"), "There is no such subscription; check its id in the list of subscriptions."),
        (("unsubscribe", "../keys"), "There is no such subscription"),
        (("unsubscribe", "sub_" + "0" * 32), "(SUBSCRIPTION_NOT_FOUND 404)"),
    ],
    ids=lambda value: repr(value)[:50] if isinstance(value, str) else None,
)
def test_what_the_api_refuses_is_told_with_its_place(system: System, arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    where = ("--api", f"http://{system.services['gateway'].listen}", "--key", system.first.consumer, "--data-dir", str(tmp_path))
    ended = told(*arguments[:2], *where, *arguments[2:])
    assert says in one_line(ended, ended.code)
    assert ended.code in {1, 2}
