import pytest

from tests.cli.conftest import Up
from tests.support.commands import hooktide

NO_ONE = "0" * 32


async def test_a_subscription_is_paused_and_resumed_by_its_owner(up: Up) -> None:
    at = ("--data-dir", str(up.data_dir))
    made = (await hooktide("subscribe", "http://127.0.0.1:9999/", "--type", "nothing.at.all", "--json", *at)).json
    paused = await hooktide("subscriptions", "pause", made["id"], *at)
    assert paused.out.startswith(f"the subscription {made['id']} is paused: paused by its owner since ")
    shown = await hooktide("subscriptions", "pause", made["id"], "--json", *at)
    assert (shown.json["id"], shown.json["state"]) == (made["id"], "paused")
    resumed = await hooktide("subscriptions", "resume", made["id"], *at)
    assert resumed.out == f"the subscription {made['id']} is active\n"
    await hooktide("unsubscribe", made["id"], *at)


async def test_a_consumer_and_the_system_are_paused_and_resumed_by_the_operator(up: Up) -> None:
    """The tests of this folder share the system, so it is resumed in any case."""
    at = ("--data-dir", str(up.data_dir))
    made = (await hooktide("subscribe", "http://127.0.0.1:9999/", "--type", "nothing.at.all", "--json", *at)).json
    for words, subject in (
        (("consumers", made["consumer_id"]), f"the consumer {made['consumer_id']} is"),
        (("system",), "all deliveries are"),
    ):
        what, *name = words
        try:
            paused = await hooktide(what, "pause", *name, *at)
            assert paused.out.startswith(f"{subject} paused since 2")
            assert "are kept at least until 2" in paused.out
            assert (await hooktide(what, "pause", *name, "--json", *at)).json["pause"]["by"].startswith("key_")
        finally:
            resumed = await hooktide(what, "resume", *name, *at)
        assert resumed.out == f"{subject} not paused\n"
    await hooktide("unsubscribe", made["id"], *at)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("subscriptions", "pause", ""), 2, "ID is empty"),
        (("consumers", "resume", ""), 2, "ID is empty"),
        (("subscriptions", "resume", f"sub_{NO_ONE}"), 1, "SUBSCRIPTION_NOT_FOUND 404"),
        (("consumers", "pause", f"con_{NO_ONE}"), 1, "CONSUMER_NOT_FOUND 404"),
        (("system", "pause", "--key", "k"), 1, "KEY_INVALID 401"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
async def test_a_mistake_is_one_clear_line(up: Up, arguments: tuple[str, ...], code: int, says: str) -> None:
    ended = await hooktide(*arguments, "--data-dir", str(up.data_dir))
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err
