import contextvars
import threading
from collections.abc import Iterator

import pytest
import structlog

from services.runtime.logs import configure_logs, logger


@pytest.fixture
def restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("restored")
def test_every_line_names_its_service_also_where_there_is_no_context(capsys: pytest.CaptureFixture[str]) -> None:
    """Callbacks that another thread has scheduled are such a case."""
    configure_logs("delivery", "info")
    logger().info("here")
    thread = threading.Thread(target=contextvars.Context().run, args=(logger().info, "there"))
    thread.start()
    thread.join()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1:] for line in lines] == [["level=info", "service=delivery", f"event={where}"] for where in ("here", "there")]
