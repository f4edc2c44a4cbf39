import base64
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Official
from standardwebhooks.webhooks import WebhookVerificationError

from services.cli.receiver import SignatureError, Webhook, receiving, secret_bytes, verify

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
BODY = b'{"specversion":"1.0"}'


def signed(body: bytes = BODY, *, secret: str = SECRET, webhook_id: str = "evt_1", timestamp: int | None = None) -> dict[str, str]:
    """Headers as the official implementation signs them."""
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
    """As during a rotation: one for each secret, and of versions that are not known here."""
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
    assert seen[2].problem == "no secret is known here; give --secret"
