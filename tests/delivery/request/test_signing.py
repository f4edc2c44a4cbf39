import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from services.delivery.model import Secret
from services.delivery.request.signing import SECRET_PREFIX, secret_bytes, signature

BODY = '{"specversion":"1.0","data":"für"}'.encode()
MESSAGE_ID = "evt_0192f0c1a2b37c4d8e5f60718293a4b5"


def secret_of(number: int) -> str:
    return SECRET_PREFIX + base64.b64encode(bytes([number]) * 32).decode()


def verifies(secret: str, signed: str, timestamp_s: int, body: bytes = BODY) -> bool:
    """Return whether the official library accepts the signature."""
    headers = {"webhook-id": MESSAGE_ID, "webhook-timestamp": str(timestamp_s), "webhook-signature": signed}
    try:
        Webhook(secret).verify(body, headers, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


def test_one_secret_verifies() -> None:
    now_s = int(time.time())
    signed = signature(MESSAGE_ID, now_s, BODY, [Secret(secret_bytes(secret_of(1)), None)], now_s * 1000)
    assert verifies(secret_of(1), signed, now_s)
    assert not verifies(secret_of(2), signed, now_s)
    assert not verifies(secret_of(1), signed, now_s, BODY + b" ")
    assert not verifies(secret_of(1), signed, now_s + 1)


def test_during_a_rotation_both_secrets_verify() -> None:
    """Every live secret signs; an expired one does not."""
    now_s = int(time.time())
    secrets = [
        Secret(secret_bytes(secret_of(1)), None),
        Secret(secret_bytes(secret_of(2)), now_s * 1000 + 1),
        Secret(secret_bytes(secret_of(3)), now_s * 1000),
    ]
    signed = signature(MESSAGE_ID, now_s, BODY, secrets, now_s * 1000)
    assert [verifies(secret_of(number), signed, now_s) for number in (1, 2, 3)] == [True, True, False]
    assert len(signed.split(" ")) == 2


@given(st.binary(max_size=200), st.binary(min_size=24, max_size=100))
def test_any_text_and_any_secret_verify(body: bytes, key: bytes) -> None:
    now_s = int(time.time())
    text = base64.b64encode(body)
    signed = signature(MESSAGE_ID, now_s, text, [Secret(key, None)], now_s * 1000)
    assert verifies(SECRET_PREFIX + base64.b64encode(key).decode(), signed, now_s, text)


def test_a_published_signature_is_ours_too() -> None:
    """The example is one by which implementations of the scheme compare themselves."""
    secret = Secret(secret_bytes("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), None)
    signed = signature(
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, b'{"email":"test@example.com","username":"test_user"}', [secret], 0
    )
    assert signed == "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="


@pytest.mark.parametrize("secret", ["whsec_!!", "whsec_YQ"])
def test_a_secret_that_is_no_base64_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match=r"base64|padding"):
        secret_bytes(secret)
