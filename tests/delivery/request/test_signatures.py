"""Signatures, verified by others: the official libraries of Python and JavaScript, raw Ed25519, and a verifier by the text of RFC 9421."""

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_private_key
from standardwebhooks import Webhook, WebhookVerificationError

from services.delivery.model import Secret
from services.delivery.request.signing import SigningKey, private_key, secret_bytes, signature, signature_v1a, signatures
from services.delivery.request.signing_rfc9421 import Signer, key_id, message_signature, signature_base, signers, target_uri

NOW_MS = int(time.time() * 1000)
NOW_S = NOW_MS // 1000
SECRETS = tuple("whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2, 3))
LIVE = (Secret(secret_bytes(SECRETS[0]), None), Secret(secret_bytes(SECRETS[1]), NOW_MS + 60_000))
EXPIRED = Secret(secret_bytes(SECRETS[2]), NOW_MS)
PRIVATE = tuple("whsk_" + base64.b64encode(bytes([number]) * 32).decode() for number in (4, 5, 6))
KEYS = tuple(
    SigningKey(private_key(text), f"key-{number}", expires_ms)
    for number, (text, expires_ms) in enumerate(zip(PRIVATE, (None, NOW_MS + 1, NOW_MS), strict=True))
)
EVENT_ID = "evt_0190a1b2c3d4"
BODIES = [b"", b'{"id": 7}', bytes(range(256)), "grüße".encode()]
URL = "https://consumer.example/hooks?x=1"


def headers_of(value: str, sent_s: int) -> dict[str, str]:
    return {"webhook-id": EVENT_ID, "webhook-timestamp": str(sent_s), "webhook-signature": value}


def public(key: SigningKey) -> Ed25519PublicKey:
    return key.key.public_key()


@pytest.mark.parametrize("body", BODIES)
def test_v1a_is_plain_ed25519_over_id_timestamp_and_body_by_each_live_key(body: bytes) -> None:
    entries = signature_v1a(EVENT_ID, NOW_S, body, KEYS, NOW_MS).split(" ")
    assert len(entries) == 2
    for entry, key in zip(entries, KEYS, strict=False):
        scheme, encoded = entry.split(",", 1)
        assert scheme == "v1a"
        signed = base64.b64decode(encoded, validate=True)
        public(key).verify(signed, b"%b.%d.%b" % (EVENT_ID.encode(), NOW_S, body))
        with pytest.raises(InvalidSignature):
            public(key).verify(signed, b"%b.%d.%b" % (EVENT_ID.encode(), NOW_S + 1, body))


def test_v1a_signs_as_the_test_vector_of_rfc_8032_does() -> None:
    """The RFC's third vector: the same key gives the same signature, whatever bytes surround the message here."""
    seed = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
    key = private_key("whsk_" + base64.b64encode(seed).decode())
    assert key.public_key().public_bytes_raw().hex() == "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
    assert key.sign(bytes.fromhex("af82")).hex().startswith("6291d657deec24024827e69c3abe01a3")


@pytest.mark.parametrize("body", [b'{"id": 7}', "grüße".encode()])
def test_the_official_python_library_verifies_by_either_secret_and_passes_over_v1a(body: bytes) -> None:
    # The libraries compare with the current time, which is later than the time at which this module was imported.
    sent_s = int(time.time())
    value = signatures(EVENT_ID, sent_s, body, (*LIVE, EXPIRED), KEYS, NOW_MS)
    assert [entry.partition(",")[0] for entry in value.split(" ")] == ["v1", "v1", "v1a", "v1a"]
    for secret in SECRETS[:2]:
        Webhook(secret).verify(body.decode(), headers_of(value, sent_s), json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS[2]).verify(body.decode(), headers_of(value, sent_s))


def test_a_subscription_signed_by_one_scheme_has_entries_of_that_one_alone() -> None:
    assert signatures(EVENT_ID, NOW_S, b"x", LIVE, (), NOW_MS) == signature(EVENT_ID, NOW_S, b"x", LIVE, NOW_MS)
    assert signatures(EVENT_ID, NOW_S, b"x", (), KEYS, NOW_MS) == signature_v1a(EVENT_ID, NOW_S, b"x", KEYS, NOW_MS)


VERIFIER = """
import { Webhook, WebhookVerificationError } from "standardwebhooks";
import { readFileSync } from "node:fs";
const cases = JSON.parse(readFileSync(0, "utf8"));
const outcomes = cases.map(({ secret, body, headers }) => {
  try { new Webhook(secret).verify(body, headers); return "verified"; }
  catch (error) { return error instanceof WebhookVerificationError ? "refused" : String(error); }
});
process.stdout.write(JSON.stringify(outcomes));
"""


def test_the_official_javascript_library_verifies_by_either_secret(tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        if os.environ.get("CI"):
            pytest.fail("node and npm are needed here")
        pytest.skip("node and npm are not installed")
    install = [npm, "install", "--prefix", str(tmp_path), "--no-audit", "--no-fund", "--ignore-scripts", "standardwebhooks@1"]
    subprocess.run(install, check=True, capture_output=True, timeout=100)  # noqa: S603 - npm itself, with fixed arguments
    (tmp_path / "verify.mjs").write_text(VERIFIER)
    body = '{"id":7,"note":"grüße"}'
    sent_s = int(time.time())
    value = signatures(EVENT_ID, sent_s, body.encode(), (*LIVE, EXPIRED), KEYS, NOW_MS)
    wrong = headers_of(value.replace("v1,", "v1,A"), sent_s)
    cases = [{"secret": secret, "body": body, "headers": headers_of(value, sent_s)} for secret in SECRETS]
    cases += [
        {"secret": SECRETS[0], "body": body + " ", "headers": headers_of(value, sent_s)},
        {"secret": SECRETS[0], "body": body, "headers": wrong},
    ]
    answer = subprocess.run(  # noqa: S603 - node itself, with our own script
        [node, "verify.mjs"], cwd=tmp_path, check=True, capture_output=True, text=True, input=json.dumps(cases), timeout=60
    )
    assert json.loads(answer.stdout) == ["verified", "verified", "refused", "refused", "refused"]


# RFC 9421, as a receiver would verify it by the text alone
MEMBER = re.compile(r'(\w+)=(\((?:"[^"]*" ?)*\)(?:;[a-z]+=(?:"[^"]*"|\d+))*)(?:, |$)')
BYTES = re.compile(r"(\w+)=:([A-Za-z0-9+/=]*):(?:, |$)")


def verified(method: str, url: str, headers: dict[str, str], body: bytes, keys: dict[str, bytes | Ed25519PublicKey]) -> list[str]:
    """Verify every signature of a request; return the names of the keys that made them. Raise on anything that does not fit."""
    digests = dict(part.split("=", 1) for part in headers["content-digest"].split(", "))
    assert digests["sha-256"] == f":{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
    inputs = dict(MEMBER.findall(headers["signature-input"]))
    values = dict(BYTES.findall(headers["signature"]))
    assert inputs.keys() == values.keys()
    derived = {"@method": method, "@target-uri": url}
    names = []
    for label, parameters in inputs.items():
        covered = re.findall(r'"([^"]*)"', parameters.partition(")")[0])
        assert len(set(covered)) == len(covered)
        lines = [f'"{name}": {derived[name] if name.startswith("@") else headers[name]}' for name in covered]
        base = "\n".join([*lines, f'"@signature-params": {parameters}']).encode()
        name, algorithm = re.search(r';keyid="([^"]*)"', parameters), re.search(r';alg="([^"]*)"', parameters)
        assert name is not None
        assert algorithm is not None
        key, given = keys[name[1]], base64.b64decode(values[label], validate=True)
        if isinstance(key, bytes):
            assert algorithm[1] == "hmac-sha256"
            assert hmac.compare_digest(given, hmac.digest(key, base, "sha256"))
        else:
            assert algorithm[1] == "ed25519"
            key.verify(given, base)
        assert {"@method", "@target-uri", "content-digest", "webhook-id", "webhook-timestamp"} <= set(covered)
        names.append(name[1])
    return names


REQUEST = {
    "content-type": "application/json",
    "webhook-id": EVENT_ID,
    "webhook-timestamp": str(NOW_S),
    "hooktide-subscription-id": "sub_1",
    "user-agent": "ours",
    "authorization": "Bearer secret",
    "ce-type": "order.created",
    "ce-source": "/shop",
}


@pytest.mark.parametrize("body", BODIES)
def test_a_message_signature_is_verified_by_the_rules_of_rfc_9421(body: bytes) -> None:
    by = signers((*LIVE, EXPIRED), (), NOW_MS)
    headers = REQUEST | message_signature(URL, REQUEST, body, by, NOW_S)
    keys: dict[str, bytes | Ed25519PublicKey] = {key_id(secret.key): secret.key for secret in (*LIVE, EXPIRED)}
    assert verified("POST", URL, headers, body, keys) == [key_id(secret.key) for secret in LIVE]
    assert "authorization" not in headers["signature-input"]
    assert "secret" not in headers["signature-input"]


def test_keys_sign_in_place_of_secrets_where_there_are_live_ones() -> None:
    headers = REQUEST | message_signature(URL, REQUEST, b"x", signers(LIVE, KEYS, NOW_MS), NOW_S)
    assert verified("POST", URL, headers, b"x", {key.key_id: public(key) for key in KEYS}) == ["key-0", "key-1"]
    assert signers(LIVE, KEYS[2:], NOW_MS) == signers(LIVE, (), NOW_MS)


@pytest.mark.parametrize("name", ["content-type", "webhook-id", "webhook-timestamp", "ce-type", "content-digest"])
def test_a_change_of_what_is_covered_is_noticed(name: str) -> None:
    headers = REQUEST | message_signature(URL, REQUEST, b"x", signers((), KEYS, NOW_MS), NOW_S)
    keys: dict[str, bytes | Ed25519PublicKey] = {key.key_id: public(key) for key in KEYS}
    for method, url, body, changed in [
        ("POST", URL, b"x", {**headers, name: "other"}),
        ("PUT", URL, b"x", headers),
        ("POST", URL + "&y=2", b"x", headers),
        ("POST", URL, b"y", headers),
    ]:
        with pytest.raises((InvalidSignature, AssertionError, KeyError, ValueError)):
            verified(method, url, changed, body, keys)


def test_where_nobody_signs_nothing_is_added() -> None:
    assert message_signature(URL, REQUEST, b"x", signers((EXPIRED,), KEYS[2:], NOW_MS), NOW_S) == {}


VECTOR_LINES = [
    ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
    ("@method", "POST"),
    ("@path", "/foo"),
    ("@authority", "example.com"),
    ("content-type", "application/json"),
    ("content-length", "18"),
]


def test_the_signature_base_is_that_of_the_rfcs_ed25519_example() -> None:
    parameters = '("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"'
    key = load_der_private_key(base64.b64decode("MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF"), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    signed = Signer(key, "test-key-ed25519").sign(signature_base(VECTOR_LINES, parameters))
    expected = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    assert base64.b64encode(signed).decode() == expected


def test_the_signature_base_is_that_of_the_rfcs_hmac_example() -> None:
    lines = [VECTOR_LINES[0], VECTOR_LINES[3], VECTOR_LINES[4]]
    parameters = '("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"'
    key = base64.b64decode("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
    signed = Signer(key, "test-shared-secret").sign(signature_base(lines, parameters))
    assert base64.b64encode(signed).decode() == "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://a.example", "https://a.example/"),
        ("HTTPS://A.Example:443/x", "https://a.example/x"),
        ("http://a.example:80?", "http://a.example/?"),
        ("https://a.example:8443?x=%2F", "https://a.example:8443/?x=%2F"),
        ("https://[2606:4700::1111]:443/a/../b", "https://[2606:4700::1111]/a/../b"),
    ],
)
def test_a_url_is_signed_as_the_receiver_knows_it(url: str, seen: str) -> None:
    assert target_uri(url) == seen
