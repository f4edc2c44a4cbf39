"""Secret leaks: secrets that must never be readable again are used everywhere, then looked for in everything written and answered.

Every sink repeats what it is sent, and most answers are failures: what the ledger keeps of them must not hold a secret either.
"""

import base64
import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import trustme
from aiohttp import web
from hooktide.subscription.v1 import subscription_pb2 as pb

from tests.support.consumers import Consumer, new_consumer
from tests.support.proxy import Proxy, running_proxy
from tests.support.service_spawner import shared_spawner
from tests.support.system.processes import System, running_system
from tests.support.waiting import PATIENCE_S, until


class Canaries:
    """The secrets, in each form that could appear, by what they are for."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    def new(self, name: str, prefix: str = "") -> str:
        """Make a secret that cannot occur by chance."""
        return self.add(name, prefix + secrets.token_hex(16))

    def add(self, name: str, secret: str) -> str:
        """Add an existing secret."""
        raw = secret.encode()
        for number, form in enumerate((raw, base64.b64encode(raw).rstrip(b"="), raw.hex().encode())):
            self.known[f"{name} ({number})"] = form
        return secret

    def add_basic(self, name: str, user: str, password: str) -> None:
        """Add a user name and password in the form in which Basic sends them."""
        self.add_raw(name, base64.b64encode(f"{user}:{password}".encode()).rstrip(b"="))

    def add_raw(self, name: str, raw: bytes) -> None:
        """Add the bytes that a secret stands for."""
        self.known[f"{name} (raw)"] = raw

    def in_(self, text: bytes) -> list[str]:
        """Return the names of the secrets that a text holds."""
        return [name for name, form in self.known.items() if form in text]


class Answers:
    """A caller of the REST API that keeps every answer in which no secret may be."""

    def __init__(self, system: System, key: str) -> None:
        self._system = system
        self._key = key
        self.texts: list[str] = []

    async def ask(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """Call, and keep the answer."""
        status, answer = await self._system.call(method, path, self._key, body)
        self.texts.append(json.dumps([status, answer]))
        return answer


async def test_no_secret_shows_in_what_a_system_writes_and_answers(tmp_path: Path) -> None:
    canaries = Canaries()
    secret_key = secrets.token_bytes(32)
    canaries.add_raw("secret key", secret_key)
    canaries.add("secret key", base64.b64encode(secret_key).decode())
    tmp_path.joinpath("elsewhere.key").write_text("k1:" + base64.b64encode(secret_key).decode())
    data = tmp_path / "data"
    seen: set[str] = set()
    async with (
        running_proxy() as proxy,
        running_system(data, _settings(canaries, tmp_path, proxy), spawn=shared_spawner().spawn) as system,
        _sink(canaries, seen) as sink,
    ):
        canaries.add("service token", system.token)
        canaries.add("admin key", system.first.admin)
        canaries.add("emitter key", system.first.emitter)
        consumer = await new_consumer(system, "canaries")
        canaries.add("consumer key", consumer.key)
        await system.found_again()  # the gateway answers calls about deliveries only once it has found the service
        answers = Answers(system, consumer.key)
        for name, credential in _credentials(canaries, sink).items():
            await _seed(canaries, consumer, answers, sink, name, credential)
        async with system.emitter() as emitter:
            await emitter.emit(type="canary.sung", source="/shop", data=1)
            await until(lambda: seen >= _SINKS, PATIENCE_S, "every sink")
            proxy.refusing = b"HTTP/1.1 407 Say who you are\r\ncontent-length: 0\r\n\r\n"
            await system.kill_and_restart("delivery")
            await emitter.emit(type="canary.sung", source="/shop", data=2)
            await _failed_by_the_proxy(answers)
            proxy.refusing = b""
        await _provoke(canaries, answers, sink)
        await _keys_of_the_servers_making(canaries, system)
        admin = Answers(system, system.first.admin)
        for path in ("/v1/subscriptions", "/v1/keys", "/v1/consumers", "/v1/deliveries", "/v1/events"):
            listed = await answers.ask("GET", path)
            await admin.ask("GET", path)
            for item in listed.get("items", []):  # type: ignore[attr-defined]  # a list where it is there
                await answers.ask("GET", f"{path}/{item['id']}")
        texts = [*answers.texts, *admin.texts, *[await _admin_pages(service.admin) for service in system.services.values()]]
        for name in ("gateway", "delivery", "ingest", "subscription"):
            await system.terminate(name)
    assert proxy.authorizations, "the proxy was shown its password"
    shown = {name for text in texts for name in canaries.in_(text.encode())}
    assert shown == set(), "shown in answers"
    assert any("[secret]" in text for text in answers.texts), "what sinks repeated was kept"
    files = {path.relative_to(tmp_path): canaries.in_(raw) for path, raw in _written(data)}
    assert any(str(path).endswith(".db") for path in files)
    assert any(path.name == "delivery.log" and data.joinpath("delivery.log").stat().st_size for path in files)
    assert {path: names for path, names in files.items() if names} == {}


def test_a_canary_that_sings_is_heard(tmp_path: Path) -> None:
    """The search finds a secret in a database, in a log, in base64 and in hexadecimal digits."""
    canaries = Canaries()
    secret = canaries.new("secret")
    with contextlib.closing(sqlite3.connect(tmp_path / "one.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (?)", (secret,))
        connection.commit()
    (tmp_path / "one.log").write_text(f"x{base64.b64encode(secret.encode()).decode()} {secret.encode().hex()}")
    assert {path.name: canaries.in_(raw) for path, raw in _written(tmp_path)} == {
        "one.db": ["secret (0)"],
        "one.log": ["secret (1)", "secret (2)"],
    }


_SINKS = {"/plain", "/accesstoken", "/header", "/oauth2", "/token", "/refusing", "/mtls", "/none"}


def _settings(canaries: Canaries, folder: Path, proxy: Proxy) -> dict[str, str]:
    """Return the settings of the system: every request goes through a proxy that wants a password."""
    password = canaries.new("password of the proxy")
    canaries.add_basic("authorization of the proxy", "operator", password)
    return {
        "HOOKTIDE_SECRET_KEY_FILE": str(folder / "elsewhere.key"),
        "HOOKTIDE_ORIGIN": "hooks.example.com",
        "HOOKTIDE_PUBLIC_URL": "https://events.example.com",
        "HOOKTIDE_SINK_HANDSHAKE": "best_effort",
        "HOOKTIDE_DELIVERY_PROXY": proxy.url.replace("://", f"://operator:{password}@"),
    }


async def _failed_by_the_proxy(answers: Answers) -> None:
    """Wait until the proxy has refused an attempt."""
    while True:
        listed = await answers.ask("GET", "/v1/deliveries?limit=200")
        for item in listed["items"]:  # type: ignore[attr-defined]  # a list
            detail = await answers.ask("GET", f"/v1/deliveries/{item['id']}")
            if "proxy refused" in json.dumps(detail):
                return


async def _keys_of_the_servers_making(canaries: Canaries, system: System) -> None:
    """Add the private keys that the registry has made itself; it tells them only to delivery."""
    watch = system.subscriptions.WatchSubscriptions(pb.WatchSubscriptionsRequest(), metadata=system.metadata)
    made = 0
    async for message in watch:
        if message.WhichOneof("item") == "checkpoint":
            break
        for key in message.put.keys:
            made += 1
            text = canaries.add(f"key {made} as kept", key.private_key.removeprefix("whsk_"))
            canaries.add_raw(f"key {made} as kept", base64.b64decode(text))
    watch.cancel()
    assert made > len(_SINKS)


def _credentials(canaries: Canaries, sink: str) -> dict[str, dict[str, str] | None]:
    """Return a credential of every type, by the path of its sink."""
    certificate = trustme.CA().issue_cert("client.example")
    private_key = certificate.private_key_pem.bytes().decode()
    for number, line in enumerate(private_key.splitlines()[1:-1]):
        canaries.add_raw(f"line {number} of the private key", line.encode())
        canaries.add_raw(f"line {number} of the private key in DER", base64.b64decode(line))
    oauth2 = {"tokenurl": f"{sink}/token", "clientid": "client", "clientsecret": canaries.new("client secret"), "scope": ""}
    # An authorization server's error code is shown if it is a word of small letters.
    letters = canaries.add("refused secret", "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(32)))
    password = canaries.new("password")
    canaries.add_basic("authorization by the password", "i", password)
    canaries.add_basic("authorization of the client", "client", oauth2["clientsecret"])
    return {
        "plain": {"credentialtype": "PLAIN", "identifier": "i", "secret": password},
        "accesstoken": {"credentialtype": "ACCESSTOKEN", "accesstoken": canaries.new("access token")},
        "header": {"credentialtype": "HEADER", "name": "x-key", "value": canaries.new("header")},
        "oauth2": {"credentialtype": "OAUTH2", **oauth2},
        "refused": {"credentialtype": "OAUTH2", **oauth2, "tokenurl": f"{sink}/refusing", "clientsecret": letters},
        "mtls": {"credentialtype": "MTLS", "certificate": certificate.cert_chain_pems[0].bytes().decode(), "privatekey": private_key},
        "none": None,
    }


async def _seed(canaries: Canaries, consumer: Consumer, answers: Answers, sink: str, name: str, credential: dict[str, str] | None) -> None:
    """Create a subscription, rotate its secrets, and let its sink be verified."""
    wanted: dict[str, object] = {
        "sink": f"{sink}/{name}",
        "types": ["canary.*"],
        "protocolsettings": {"signatures": ["v1", "v1a"], "http_message_signature": True},
    }
    if credential is not None:
        wanted["sinkcredential"] = credential
    status, made = await consumer.system.call("POST", "/v1/subscriptions", consumer.key, wanted)
    assert status == 201, made
    _signing(canaries, f"secret of {name}", str(made.pop("secret")))
    answers.texts.append(json.dumps(made))
    path = f"/v1/subscriptions/{made['id']}"
    _, rotated = await consumer.system.call("POST", f"{path}/secret/rotate", consumer.key, {})
    _signing(canaries, f"rotated secret of {name}", str(rotated["secret"]))
    brought = secrets.token_bytes(32)
    canaries.add_raw(f"brought key of {name}", brought)
    text = canaries.add(f"brought key of {name}", "whsk_" + base64.b64encode(brought).decode())
    await answers.ask("POST", f"{path}/secret/rotate", {"secret": text})
    await answers.ask("POST", f"{path}/verify")
    await answers.ask("PATCH", path, {"source": ""})


def _signing(canaries: Canaries, name: str, secret: str) -> None:
    canaries.add_raw(name, base64.b64decode(secret.removeprefix("whsec_")))
    canaries.add(name, secret.removeprefix("whsec_"))


async def _provoke(canaries: Canaries, answers: Answers, sink: str) -> None:
    """Make invalid requests that contain secrets."""
    plain = {"credentialtype": "PLAIN", "identifier": "i", "secret": canaries.new("bad password") + "\n"}
    for wrong in (
        {"sink": f"{sink}/x", "sinkcredential": plain},
        {"sink": f"{sink}/x", "sinkcredential": {"credentialtype": "MTLS", "certificate": "x", "privatekey": canaries.new("bad key")}},
        {"sink": f"{sink}/x", "sinkcredential": {"credentialtype": "HEADER", "name": "host", "value": canaries.new("bad header")}},
        {"sink": f"{sink}/x", "secret": canaries.new("bad secret", "whsec_!")},
    ):
        answer = await answers.ask("POST", "/v1/subscriptions", wrong)
        assert "reason" in answer, answer
    key = canaries.new("unknown key", "hkt_")
    stranger = Answers(answers._system, key)  # noqa: SLF001 - another caller of the same system
    assert (await stranger.ask("GET", "/v1/subscriptions"))["reason"]
    answers.texts += stranger.texts


async def _admin_pages(address: str) -> str:
    async with aiohttp.ClientSession() as http:
        pages = []
        for page in ("metrics", "healthz", "readyz"):
            async with http.get(f"http://{address}/{page}") as response:
                pages.append(await response.text())
        return "\n".join(pages)


def _written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory) / name
            yield path, path.read_bytes()


@contextlib.asynccontextmanager
async def _sink(canaries: Canaries, seen: set[str]) -> AsyncIterator[str]:
    """Run the sinks and the authorization server; yield their URL. All repeat what they are sent; a sink succeeds only at attempt 3."""

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.method == "POST":
            seen.add(request.path)
        sent = json.dumps([request.headers.get(name, "") for name in ("authorization", "x-key", "webhook-request-callback")])
        if request.method == "OPTIONS":
            return web.Response(headers={"WebHook-Allowed-Origin": sent, "WebHook-Allowed-Rate": sent})
        if request.path == "/token":
            given = canaries.new(f"access token {len(canaries.known)} of OAuth2")
            return web.json_response({"access_token": given, "token_type": "Bearer", "expires_in": 1})
        if request.path == "/refusing":
            _, _, client_secret = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode().partition(":")
            return web.json_response({"error": client_secret, "error_description": sent}, status=401)
        if request.headers.get("hooktide-attempt") == "3":
            return web.Response(text=sent)
        # After a 401 delivery fetches another token and sends the request again within the same attempt.
        return web.Response(
            status=401 if request.path == "/oauth2" else 500, text=f"{sent} {await request.text()}", headers={"x-sent": sent}
        )

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
