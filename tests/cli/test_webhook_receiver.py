import base64
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Official
from standardwebhooks.webhooks import WebhookVerificationError

from services.cli.webhook_receiver import SignatureError, Webhook, key_problem, receiving, secret_bytes, verify

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
BODY = b'{"specversion":"1.0"}'


def signed(body: bytes = BODY, *, secret: str = SECRET, webhook_id: str = "evt_1", timestamp: int | None = None) -> dict[str, str]:
    """Return headers as the official implementation signs them."""
    timestamp = int(time.time()) if timestamp is None else timestamp
    signature = Official(secret).sign(webhook_id, datetime.fromtimestamp(timestamp, UTC), body.decode())
    return {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def officially_good(headers: Mapping[str, str], body: bytes) -> bool:
    try:
        Official(SECRET).verify(body, dict(headers), json_parse=False)
    except WebhookVerificationError:
        return False
    return True


def good(headers: Mapping[str, str], body: bytes = BODY, *secrets: str) -> bool:
    try:
        verify(secrets or (SECRET,), headers, body, now=time.time())
    except SignatureError:
        return False
    return True


@given(body=st.text().map(str.encode), webhook_id=st.from_regex(r"evt_[0-9a-f]{8}", fullmatch=True))
def test_what_the_official_implementation_signs_is_verified(body: bytes, webhook_id: str) -> None:
    headers = signed(body, webhook_id=webhook_id)
    assert good(headers, body)
    assert not good(headers, body + b" ")
    assert not good(headers, body, OTHER)
    assert not good({**headers, "webhook-id": webhook_id + "0"}, body)


@pytest.mark.parametrize("age_s", [0, 200, -200, 400, -400])
def test_old_and_future_timestamps_are_judged_as_officially(age_s: int) -> None:
    headers = signed(timestamp=int(time.time()) - age_s)
    assert good(headers) is officially_good(headers, BODY) is (abs(age_s) <= 300)


def test_one_good_signature_among_others_is_enough() -> None:
    """During a rotation there is a signature for each secret, and there may be signatures of unknown versions."""
    new, old = signed(secret=SECRET), signed(secret=OTHER)
    both = {**new, "webhook-signature": f"v1a,AAAA nonsense {old['webhook-signature']} {new['webhook-signature']}"}
    assert good(both)
    assert good(both, BODY, OTHER)
    assert good(old, BODY, SECRET, OTHER)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v2," + "A" * 44},
        {"webhook-signature": "v1,\udcff"},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "²"},
        {"webhook-timestamp": "-1"},
        {"webhook-id": ""},
    ],
    ids=str,
)
def test_broken_headers_are_refused(change: dict[str, str]) -> None:
    assert not good({**signed(), **change})


PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = "whpk_" + base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode()
OTHER_PUBLIC = "whpk_" + base64.b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()


def with_v1a(headers: dict[str, str], body: bytes = BODY, *, alone: bool = False) -> dict[str, str]:
    """Add an Ed25519 signature, or replace the other signatures by it."""
    content = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
    signature = "v1a," + base64.b64encode(PRIVATE.sign(content)).decode()
    return headers | {"webhook-signature": signature if alone else f"{headers['webhook-signature']} {signature}"}


def judged(headers: Mapping[str, str], *keys: str, body: bytes = BODY) -> object:
    """Return the schemes that verify a request, or why it does not verify."""
    try:
        return verify(keys, headers, body, now=time.time())
    except SignatureError as error:
        return str(error)


def test_both_schemes_are_verified_by_their_own_keys() -> None:
    both, only_v1, only_v1a = with_v1a(signed()), signed(), with_v1a(signed(), alone=True)
    assert judged(both, SECRET, PUBLIC) == ("v1", "v1a")
    assert judged(both, SECRET) == judged(only_v1, SECRET) == ("v1",)
    assert judged(both, PUBLIC) == judged(only_v1a, PUBLIC) == judged(both, OTHER_PUBLIC, PUBLIC) == ("v1a",)
    # A webhook with a single scheme is verified by that scheme.
    assert judged(only_v1, SECRET, PUBLIC) == ("v1",)
    assert judged(only_v1a, SECRET, PUBLIC) == ("v1a",)


def test_a_wrong_signature_is_not_excused_by_a_good_one_of_the_other_scheme() -> None:
    both = with_v1a(signed())
    assert judged(both, SECRET, OTHER_PUBLIC) == "the v1a signature does not match this public key"
    assert judged(both, OTHER, PUBLIC) == "the v1 signature does not match this secret"
    assert judged(both, OTHER, OTHER, PUBLIC) == "the v1 signature does not match any of these secrets"
    assert judged(both, PUBLIC, body=BODY + b" ") == "the v1a signature does not match this public key"
    assert judged({**both, "webhook-signature": "v1a,AAAA v1a,!! v1a,\udcff"}, PUBLIC) == "the v1a signature does not match this public key"


def test_a_signature_that_is_missing_is_named() -> None:
    only_v1, only_v1a = signed(), with_v1a(signed(), alone=True)
    assert judged(only_v1, PUBLIC) == "the webhook has no v1a signature; it has a v1 signature, so give its signing secret (whsec_…)"
    assert judged(only_v1a, SECRET) == "the webhook has no v1 signature; it has a v1a signature, so give its public key (whpk_…)"
    assert judged({**only_v1, "webhook-signature": "v9,x"}, SECRET, PUBLIC) == (
        "the webhook has no v1 and no v1a signature; it has no other supported signature"
    )
    assert judged({}, SECRET) == "the webhook has no header webhook-id and no header webhook-timestamp and no header webhook-signature"
    assert judged({**only_v1, "webhook-signature": ""}, SECRET) == "the webhook has no header webhook-signature"


@pytest.mark.parametrize(
    "key", ["whpk_", "whpk_%%", "whpk_" + base64.b64encode(bytes(31)).decode(), "whsk_" + base64.b64encode(bytes(32)).decode()]
)
def test_what_is_no_public_key_is_refused(key: str) -> None:
    assert key_problem(key) is not None
    assert key_problem(PUBLIC) is key_problem(SECRET) is None


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_%%%", SECRET.removeprefix("whsec_"), "whsec_" + "QUJD" * 2, "whsec_" + "QUJD" * 30]
)
def test_what_is_no_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        secret_bytes(secret)


async def test_a_receiver_verifies_by_path_and_answers_as_told() -> None:
    seen: list[Webhook] = []

    def answer(webhook: Webhook) -> int:
        seen.append(webhook)
        return 204 if webhook.verified else 401

    secrets = {"/a": [SECRET], "/b": [OTHER]}
    async with receiving(lambda path: secrets.get(path, ()), answer) as url, aiohttp.ClientSession() as session:
        statuses = []
        for path in ("/a", "/b", "/c/d"):
            async with session.post(url + path, data=BODY, headers=signed()) as response:
                statuses.append(response.status)
    assert statuses == [204, 401, 401]
    assert [(webhook.path, webhook.id, webhook.body, webhook.verified) for webhook in seen] == [
        ("/a", "evt_1", BODY, True),
        ("/b", "evt_1", BODY, False),
        ("/c/d", "evt_1", BODY, False),
    ]
    assert seen[2].problem == "there is no secret to verify it with; give --secret"
