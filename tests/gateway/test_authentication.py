from collections.abc import Sequence

import pytest

from gateway.authentication import Authenticator, Caller, Role
from services.runtime.api_key import format_key
from services.runtime.clock import SystemClock
from services.runtime.consumer_scope import EVERYONE, OwnConsumer
from services.runtime.errors import Failure, Reason
from services.runtime.ids import new_id

KEY = format_key(bytes(32))
OTHER = format_key(bytes([1]) * 32)


class Registry:
    """Knows one key, and notes the keys that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def ask(self, keys: Sequence[str]) -> list[Caller | Failure]:
        """Answer one question."""
        self.asked += keys
        return [
            Caller("key_1", Role.CONSUMER, "con_1", None, {}) if key == KEY else Failure(Reason.KEY_INVALID, "Unknown.") for key in keys
        ]


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
async def authenticator(registry: Registry) -> Authenticator:
    return Authenticator(registry.ask, SystemClock())


async def refusal(authenticator: Authenticator, authorization: str) -> Reason:
    with pytest.raises(Failure) as caught:
        await authenticator.caller(authorization)
    return caught.value.reason


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_a_key_stands_for_its_caller(registry: Registry, authenticator: Authenticator, scheme: str) -> None:
    assert (await authenticator.caller(f"{scheme} {KEY}")).key_id == "key_1"
    assert registry.asked == [KEY]


async def test_a_key_that_the_registry_does_not_know_is_refused(registry: Registry, authenticator: Authenticator) -> None:
    assert await refusal(authenticator, f"Bearer {OTHER}") is Reason.KEY_INVALID
    assert registry.asked == [OTHER]


@pytest.mark.parametrize("authorization", ["", "Basic aGt0X2E6", "hkt_a", "Bearer", "Bearer  "])
async def test_without_a_bearer_a_key_is_required(registry: Registry, authenticator: Authenticator, authorization: str) -> None:
    assert await refusal(authenticator, authorization) is Reason.KEY_REQUIRED
    assert registry.asked == []


def test_an_administrator_acts_for_everyone_and_a_consumer_for_itself() -> None:
    own_id = new_id("con")
    assert Caller("key_1", Role.ADMIN, "", None, {}).scope == EVERYONE
    assert Caller("key_2", Role.CONSUMER, own_id, None, {}).scope == OwnConsumer(own_id)


@pytest.mark.parametrize("consumer_id", ["", "*"])
@pytest.mark.parametrize("role", [Role.EMITTER, Role.CONSUMER])
def test_a_key_without_a_consumer_has_no_scope(role: Role, consumer_id: str) -> None:
    """An emitter's key, or a consumer's key whose consumer is missing, never acts for everyone."""
    with pytest.raises(ValueError, match="is not the id of a consumer"):
        _ = Caller("key_3", role, consumer_id, None, {}).scope
