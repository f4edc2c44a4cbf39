import io

import pytest
from rich.console import Console

from services.cli.demo.shop_events import WAREHOUSE
from services.cli.demo.tally import Tally
from services.cli.demo.terminal_view import LiveView, Shown


@pytest.mark.parametrize("height", [10, 24, 50])
def test_the_live_picture_keeps_within_the_terminal(height: int) -> None:
    view = LiveView(Tally(), 7, height)
    for number in range(40):
        view.step(f"step {number} " + "long " * 30)
        view.webhook(Shown(WAREHOUSE, "order.created", f"order-{number}", "evt_1", "1", None, 1))
    console = Console(file=io.StringIO(), width=80, height=height)
    with console.capture() as shown:
        console.print(view.picture())
    lines = shown.get().splitlines()
    assert len(lines) < max(height, 11)
    assert {"emitted", "delivered", "verified"} <= {line.split()[0] for line in lines}
    assert "order-39" in shown.get()
