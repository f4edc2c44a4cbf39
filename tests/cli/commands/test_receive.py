import asyncio
import base64
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


async def test_a_receiver_shows_what_it_cannot_verify_and_fails_as_told(up: Up) -> None:
    at = ("--data-dir", str(up.data_dir), "--json")
    async with running("receive", "--fail-first", "1", "--status", "202") as receiver:
        url = (await receiver.line("Receiving at")).split()[2]
        subscribed = await hooktide("subscribe", url, "--type", "com/kuchen:ü+1", *at)
        assert subscribed.code == 0, subscribed
        await hooktide("emit", "com/kuchen:ü+1", "--source", "/kitchen", "--data", json.dumps({"layers": ["x" * 300]}), *at)
        first = await receiver.line("com/kuchen:ü+1")
        assert "NOT VERIFIED: there is no secret to verify it with" in first
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
        assert "verified by v1; the webhook has no v1a signature  answered 200" in await receiver.line("tea.cold")
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
