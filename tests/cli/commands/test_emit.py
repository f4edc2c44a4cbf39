import signal
import socket

from tests.cli.conftest import Up
from tests.support.commands import hooktide, running


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
    config = ("--description", "mine", "--start", "beginning", "--ordering", "key")
    subscribed = await hooktide("subscribe", f"{url}/orders", "--type", "order.*", "--source", "/shop", *config, *at)
    assert subscribed.code == 0, subscribed
    assert subscribed.json["types"] == ["order.*"]
    shown = subscribed.json["config"]
    assert (shown["description"], shown["start"], shown["ordering"]) == ("mine", "beginning", "key")
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
