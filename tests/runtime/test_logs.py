import contextvars
import logging
import threading
from collections.abc import Iterator

import pytest
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # the class that gRPC logs is not public

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


@pytest.mark.usefixtures("restored")
def test_a_peer_that_disappears_while_an_answer_is_written_to_it_is_no_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library logs it as an error with a traceback. Its other errors are ours to see."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure_logs("ingest", "debug")
    library = logging.getLogger("grpc._cython.cygrpc")
    for error in (cygrpc.ExecuteBatchError("gone"), ValueError("broken")):
        try:
            raise error
        except (cygrpc.ExecuteBatchError, ValueError):
            library.exception("raised by servicer method [/Log/Follow]")
    gone, broken = capsys.readouterr().err.splitlines()
    assert "level=debug" in gone
    assert "event=rpc.peer_gone" in gone
    assert "Traceback" not in gone
    assert "level=error" in broken
    assert "ValueError: broken" in broken
