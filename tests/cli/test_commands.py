import asyncio
import base64
import importlib.metadata
import json
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.cli.supervise.data_directory import DataDirectory
from tests.cli.conftest import Up
from tests.support.commands import WITHIN_S, clean_environ, hooktide, running

MERGE = {"content-type": "application/merge-patch+json"}


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        return port


async def test_an_emitted_event_reaches_a_subscribed_receiver_verified(up: Up) -> None:
    """The README's tour: subscribe, receive, emit, unsubscribe, with the defaults that `up` has left."""
    at = ("--data-dir", str(up.data_dir), "--json")
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    subscribed = await hooktide("subscribe", f"{url}/orders", "--type", "order.*", "--source", "/shop", "--description", "mine", *at)
    assert subscribed.code == 0, subscribed
    assert subscribed.json["types"] == ["order.*"]
    assert subscribed.out.endswith("}\n")
    async with running("receive", "--json", "--port", port, "--secret", subscribed.json["secret"]) as receiver:
        await receiver.json_line()
        emitted = await hooktide(
            *("emit", "order.created", "--source", "/shop", "--subject", "order-7", "--data", "-", "--id", "7"), *at, stdin='{"id": 7}'
        )
        assert emitted.code == 0, emitted
        webhook = await receiver.json_line()
        assert (webhook["verified"], webhook["id"], webhook["path"]) == (True, emitted.json["event_id"], "/orders")
        assert (webhook["event"]["subject"], webhook["event"]["data"]) == ("order-7", {"id": 7})
        ended = await receiver.end(signal.SIGTERM)
        assert (ended.code, ended.err) == (0, "")
    unsubscribed = await hooktide("unsubscribe", subscribed.json["id"], *at)
    assert unsubscribed.json == {"id": subscribed.json["id"], "deleted": True}
    again = await hooktide("unsubscribe", subscribed.json["id"], *at)
    assert again.code == 1
    assert "SUBSCRIPTION_NOT_FOUND 404" in again.err


async def test_an_event_of_the_same_id_and_time_is_the_same_event(up: Up) -> None:
    at = ("--id", "7", "--time", "2030-01-31T12:00:00+01:00", "--data", "1", "--data-dir", str(up.data_dir), "--json")
    first = await hooktide("emit", "tea.made", "--source", "/repeated", *at)
    again = await hooktide("emit", "tea.made", "--source", "/repeated", *at)
    assert (first.json["duplicate"], again.json) == (False, first.json | {"duplicate": True})


async def test_the_version_is_the_distribution_s() -> None:
    assert (await hooktide("--version")).out == f"hooktide {importlib.metadata.version('hooktide-server')}\n"


async def test_what_answers_but_is_no_api_is_said_in_words(up: Up) -> None:
    """The port is another service's, which does not speak HTTP."""
    ingest = up.told["addresses"]["ingest"]["listen"]
    ended = await hooktide("subscribe", "http://127.0.0.1:9/", "--key", "k", "--api", f"http://{ingest}")
    assert (ended.code, ended.out) == (1, "")
    assert f"no answer from http://{ingest} (what answers there speaks no HTTP); is `hooktide up` running?" in ended.err
    assert ended.err.count("\n") == 1


async def test_people_get_lines_instead_of_json(up: Up) -> None:
    at = ("--data-dir", str(up.data_dir))
    subscribed = await hooktide("subscribe", "http://127.0.0.1:9999/", "--type", "nothing.at.all", *at)
    assert subscribed.out.startswith("subscription  sub_")
    assert "secret        whsec_" in subscribed.out
    emitted = await hooktide("emit", "tea.made", "--source", "/kitchen", "--data", '"hot"', *at)
    assert emitted.out.startswith("evt_")
    assert "is durable in partition" in emitted.out
    subscription = subscribed.out.split()[1]
    assert (await hooktide("unsubscribe", subscription, *at)).out == f"{subscription} is unsubscribed\n"


async def test_a_receiver_shows_what_it_cannot_verify_and_fails_as_told(up: Up) -> None:
    at = ("--data-dir", str(up.data_dir), "--json")
    async with running("receive", "--fail-first", "1", "--status", "202") as receiver:
        url = (await receiver.line("Receiving at")).split()[2]
        subscribed = await hooktide("subscribe", url, "--type", "com/kuchen:ü+1", *at)
        assert subscribed.code == 0, subscribed
        await hooktide("emit", "com/kuchen:ü+1", "--source", "/kitchen", "--data", json.dumps({"layers": ["x" * 300]}), *at)
        first = await receiver.line("com/kuchen:ü+1")
        assert "NOT VERIFIED: no secret is known here" in first
        assert first.endswith("answered 503")
        assert (await receiver.line("layers")).endswith("…")
        assert (await receiver.line("com/kuchen:ü+1")).endswith("answered 202")
        await hooktide("unsubscribe", subscribed.json["id"], *at)


async def test_a_receiver_reads_every_content_mode_and_verifies_both_schemes_with_keys_from_a_file(up: Up, tmp_path: Path) -> None:
    """The test subscribes over REST, since only REST can ask for binary mode and for Ed25519."""
    keys = DataDirectory(up.data_dir).read_keys()
    assert keys is not None
    held = tmp_path / "keys"
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {keys.consumer}"}) as session:

        async def rest(method: str, path: str, body: object = None) -> dict[str, Any]:
            async with session.request(
                method, f"{up.api}/v1/subscriptions{path}", json=body, headers=MERGE if method == "PATCH" else {}
            ) as answer:
                assert answer.status < 300, await answer.text()
                value: dict[str, Any] = await answer.json() if answer.status != 204 else {}
                return value

        port = free_port()
        body = {"sink": f"http://127.0.0.1:{port}/", "types": ["mode.*"], "protocolsettings": {"signatures": ["v1", "v1a"]}}
        made = await rest("POST", "", body)
        secrets = await rest("GET", f"/{made['id']}/secret")
        shown = [secret["secret"] for secret in secrets["secrets"]] + [key["public_key"] for key in secrets["keys"]]
        held.write_text("\n".join(shown) + "\n")
        async with running("receive", "--json", "--port", str(port), "--secret", f"@{held}") as receiver:
            await receiver.json_line()
            for mode in ("structured", "binary", "data_only"):
                await rest("PATCH", f"/{made['id']}", {"protocolsettings": {"content_mode": mode}})
                await hooktide("emit", "mode.set", "--source", "/s", "--data", f'"{mode}"', "--data-dir", str(up.data_dir))
                webhook = await receiver.json_line()
                assert (webhook["verified"], webhook["schemes"], webhook["missing"]) == (True, ["v1", "v1a"], [])
                assert (webhook["content_mode"], webhook["event"]["data"]) == (mode, mode)
                assert webhook["event"].get("type") == (None if mode == "data_only" else "mode.set")
        await rest("DELETE", f"/{made['id']}")


async def test_a_receiver_takes_its_secret_from_the_environment_and_says_which_signature_is_missing(up: Up) -> None:
    port = free_port()
    at = ("--data-dir", str(up.data_dir), "--json")
    subscribed = await hooktide("subscribe", f"http://127.0.0.1:{port}/", "--type", "tea.cold", *at)
    public = "whpk_" + base64.b64encode(bytes(32)).decode()
    environ = clean_environ(HOOKTIDE_SIGNING_SECRET=f"{subscribed.json['secret']} {public}")
    async with running("receive", "--port", str(port), environ=environ) as receiver:
        await receiver.line("Receiving at")
        await hooktide("emit", "tea.cold", "--source", "/kitchen", *at)
        assert "verified by v1; it has no v1a signature  answered 200" in await receiver.line("tea.cold")
    await hooktide("unsubscribe", subscribed.json["id"], *at)


async def test_a_sender_cannot_steer_the_receivers_terminal_nor_stop_the_receiver() -> None:
    """The sender uses control characters, text that is not UTF-8, and great length."""
    event = {"specversion": "1.0", "type": "\x1b[31mred", "source": "\x9b2J", "subject": "\ud800" * 1000, "data": "\x9b2J \udcff"}
    headers = {"content-type": "application/cloudevents+json", "webhook-id": "\udcff"}
    for options in ((), ("--json",)):
        async with running("receive", *options) as receiver:
            url = re.findall(r"http://[\d.:]+", await receiver.line("http://"))[0]
            async with aiohttp.ClientSession() as session, session.post(f"{url}/a", json=event, headers=headers) as answer:
                assert answer.status == 200
            shown = await receiver.line("red")
            assert len(shown) < 10_000
            if not options:
                assert "\\x1b[31mred \\x9b2J" in shown
                assert not {"\x1b", "\x9b"} & set(shown)
            assert (await receiver.end(signal.SIGINT)).err == ""


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_a_reader_that_goes_away_stops_no_receiver(options: tuple[str, ...]) -> None:
    """`hooktide receive | head -1` does this."""
    port = free_port()
    ours, its = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "services", "receive", "--port", str(port), *options),
        stdout=its,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environ(),
    )
    os.close(its)
    try:
        assert str(port).encode() in await asyncio.to_thread(os.read, ours, 1000)
        os.close(ours)
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                async with session.post(f"http://127.0.0.1:{port}/", data=b"x") as answer:
                    assert answer.status == 200
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(WITHIN_S):
            assert (await process.communicate())[1] == b""
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("wishes", "coloured"), [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)]
)
async def test_colours_are_for_terminals_and_for_those_who_want_them(wishes: dict[str, str], coloured: bool) -> None:  # noqa: FBT001 - as the table has it
    async with running("receive", environ=clean_environ(TERM="xterm", **wishes)) as receiver:
        url = (await receiver.line("Receiving at")).split()[2]
        async with aiohttp.ClientSession() as session:
            await session.post(url, data=b"x")
        assert ("\x1b[1;31mNOT VERIFIED" in await receiver.line("NOT VERIFIED")) is coloured


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


async def test_health_says_of_each_service_whether_it_takes_work(up: Up, tmp_path: Path) -> None:
    ended = await hooktide("health", "--data-dir", str(up.data_dir), "--json")
    assert (ended.code, ended.json) == (
        0,
        {"ready": True, "services": dict.fromkeys(("subscription", "ingest", "delivery", "gateway"), "ready")},
    )
    environ = clean_environ(HOOKTIDE_INGEST_ADMIN_LISTEN="127.0.0.1:9", HOOKTIDE_DATA_DIR=str(tmp_path))
    ended = await hooktide("health", "ingest", environ=environ)
    assert ended.code == 1
    assert ended.out.startswith("ingest        no answer at 127.0.0.1:9")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("emit", "a.b", "--source", "/s"), 2, "no API key: give --key, HOOKTIDE_KEY or HOOKTIDE_KEY_FILE with a key of the role emitter"),
        (("emit", "a.b", "--source", "/s", "--data", "hello"), 2, "--data is no JSON"),
        (("emit", "a.b", "--source", "/s", "--data", "@missing"), 2, "--data: cannot read missing"),
        (("emit", "a.b", "--source", "/s", "--time", "2030-01-31T12:00:00"), 2, "--time: '2030-01-31T12:00:00' is no time with a zone"),
        (("emit", "a.b", "--source", "/s", "--key", "k", "--target", "127.0.0.1:9", "--timeout", "0.5"), 1, "127.0.0.1:9: no answer"),
        (("emit", "a.b"), 2, "--source"),
        (("subscribe", "http://127.0.0.1:9/"), 2, "no API key"),
        (("subscribe", "http://127.0.0.1:9/", "--key", "k", "--api", "http://127.0.0.1:9"), 1, "is `hooktide up` running?"),
        (("receive", "--secret", "nonsense"), 2, "--secret: a signing secret is whsec_"),
        (("receive", "--secret", "whpk_x"), 2, "--secret: a public key is whpk_"),
        (("receive", "--secret", "@missing"), 2, "--secret: cannot read missing: No such file or directory"),
        (("receive", "--secret", "@/dev/null"), 2, "--secret: /dev/null is empty; write the secret there"),
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


async def test_a_misspelt_variable_is_reported(tmp_path: Path) -> None:
    ended = await hooktide("serve", "ingest", environ=clean_environ(HOOKTIDE_INGEST_LISTN="x", HOOKTIDE_KEY="k"), cwd=tmp_path)
    assert (ended.code, ended.err) == (2, "hooktide ingest: HOOKTIDE_INGEST_LISTN is not a setting; did you mean HOOKTIDE_INGEST_LISTEN?\n")


async def test_a_service_runs_alone_and_stops_with_its_input(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    environ = clean_environ(
        HOOKTIDE_SERVICE_TOKEN="hts_" + "x" * 40, HOOKTIDE_INGEST_LISTEN="127.0.0.1:0", HOOKTIDE_INGEST_ADMIN_LISTEN="127.0.0.1:0"
    )
    ended = await hooktide("serve", "ingest", "--ready-file", str(ready), "--until-stdin-closes", environ=environ, cwd=tmp_path)
    assert ended.code == 0
    assert set(json.loads(ready.read_text())) == {"listen", "admin"}
    assert "event=service.stopped" in ended.err
