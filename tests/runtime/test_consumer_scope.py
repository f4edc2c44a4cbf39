import pytest

from services.runtime.consumer_scope import EVERYONE, OwnConsumer, Scope, parse_scope
from services.runtime.errors import Failure, Reason
from services.runtime.ids import new_id
from services.runtime.rpc.requested_scope import requested_scope


@pytest.mark.parametrize("scope", [EVERYONE, OwnConsumer(new_id("con"))], ids=["everyone", "own"])
def test_a_scope_reads_back_from_its_text(scope: Scope) -> None:
    assert parse_scope(scope.text) == scope


def test_an_own_scope_includes_its_consumer_and_nobody_else() -> None:
    own_id = new_id("con")
    scope = OwnConsumer(own_id)
    assert scope.includes(own_id)
    assert not any(scope.includes(other) for other in ("", "*", new_id("con"), own_id.upper(), own_id[:-1]))


def test_the_scope_of_everyone_includes_every_consumer() -> None:
    assert EVERYONE.includes(new_id("con"))


@pytest.mark.parametrize("text", ["", " ", "*.*", "**", "con_", "con_" + "A" * 32, "con_" + "0" * 33, "sub_" + "0" * 32, "everyone"])
def test_a_text_that_names_no_scope_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="for one consumer"):
        parse_scope(text)
    with pytest.raises(Failure) as caught:
        requested_scope(text)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert [error.field for error in caught.value.fields] == ["consumer_id"]
    assert '"con_…"' in caught.value.message
    assert '"*"' in caught.value.message


@pytest.mark.parametrize("consumer_id", ["", "*", "con_", "key_" + "0" * 32])
def test_no_own_scope_can_be_made_without_a_consumer(consumer_id: str) -> None:
    with pytest.raises(ValueError, match="is not the id of a consumer"):
        OwnConsumer(consumer_id)
