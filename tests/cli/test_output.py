import aiohttp
import pytest

from tests.cli.conftest import Up
from tests.support.commands import clean_environ, hooktide, running


async def test_people_get_lines_instead_of_json(up: Up) -> None:
    at = ("--data-dir", str(up.data_dir))
    subscribed = await hooktide("subscribe", "http://127.0.0.1:9999/", "--type", "nothing.at.all", *at)
    assert subscribed.out.startswith("subscription  sub_")
    assert "secret        whsec_" in subscribed.out
    emitted = await hooktide("emit", "tea.made", "--source", "/kitchen", "--data", '"hot"', *at)
    assert emitted.out.startswith("evt_")
    assert "is durable in partition" in emitted.out
    subscription = subscribed.out.split()[1]
    assert (await hooktide("unsubscribe", subscription, *at)).out == f"the subscription {subscription} is deleted\n"


@pytest.mark.parametrize(
    ("wishes", "coloured"), [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)]
)
async def test_colours_are_for_terminals_and_for_those_who_want_them(wishes: dict[str, str], coloured: bool) -> None:  # noqa: FBT001 - as the table has it
    async with running("receive", environ=clean_environ(TERM="xterm", **wishes)) as receiver:
        url = (await receiver.line("Receiving at")).split()[2]
        async with aiohttp.ClientSession() as session:
            await session.post(url, data=b"x")
        assert ("\x1b[1;31mNOT VERIFIED" in await receiver.line("NOT VERIFIED")) is coloured
