"""Event walk: a real event passes the files that ARCHITECTURE.md names in "The walk of one event", in that order."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import hooktide

from tests.delivery.system import State, running_system
from tests.repository.test_documents import ROOT, exists, places, table
from tests.support.waiting import until
from tests.support.webhook_receivers.receiver import Receiver

FOLDERS = (f"{ROOT / 'services'}/", f"{ROOT / 'protos' / 'src' / 'hooktide'}/")
# One call of each room: on the event's way out, then on its outcome's way back after a failure, then when the retry is due.
CALLS = (
    "emitter.emit",
    "ingest/event_count.count_events",
    "ingest/event_validation.validate_event",
    "eventlog/sqlite/log.append",
    "eventlog/sqlite/tail.extend",
    "delivery/subscriptions/router.match",
    "delivery/dispatch/dispatcher.add",
    "delivery/request/sender.send",
    "delivery/request/request_builder.request_of",
    "delivery/transport/http.send",
    "delivery/transport/pool.put",
    "delivery/transport/response_parser.feed",
    "delivery/transport/pool.answered",
    "delivery/request/attempt_record.attempt_of",
    "delivery/dispatch/retry_policy.after_failure",
    "delivery/worker/unflushed_deliveries.add_settled",
    "delivery/ledger/sqlite/flush_writer.flush",
    "delivery/dispatch/dispatcher.release",
    "delivery/ledger/sqlite/queries.due_rows",
    "delivery/dispatch/dispatcher.queue",
    "delivery/request/sender.send",
    "delivery/transport/pool.answered",
    "delivery/ledger/sqlite/flush_writer.flush",
)


@contextlib.contextmanager
def recorded() -> Iterator[list[str]]:
    """Record the calls of functions of the services and the emitter, each as `file.function`; threads must start within the body."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(FOLDERS):
            folder = next(each for each in FOLDERS if path.startswith(each))
            calls.append(f"{path.removeprefix(folder).removesuffix('.py')}.{frame.f_code.co_name}")

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def named_files() -> set[str]:
    """Return the files that the walk names, as `recorded` writes them."""
    paths = [path for row in table("The walk of one event") for path, _ in places(row[2], "services/") if not path.endswith("/")]
    return {path.removeprefix("services/") if exists(path) else Path(path).name for path in paths if not path.startswith("protos/")}


async def test_an_event_passes_the_files_that_the_architecture_names_in_that_order(tmp_path: Path, hooks: Receiver) -> None:
    hooks.answer = lambda hook: 500 if hook.attempt == 1 else 200
    with recorded() as calls:
        async with running_system(tmp_path) as system, system.delivering(HOOKTIDE_HOUSEKEEPING_SECONDS="0.05") as delivering:
            await system.subscribe(hooks.url())
            async with hooktide.Emitter(system.environ["HOOKTIDE_INGEST_TARGET"], key=system.emitter_key) as emitter:
                # Events that are in the log before delivery follows it take another way, because they may have been sent before.
                await until(lambda: "delivery/worker/read_ahead.read_ahead" in calls)
                calls.clear()
                await emitter.emit(type="order.created", source="/shop", data={"id": 7})
            await delivering.until(1, state=State.DELIVERY_STATE_DELIVERED)
            end = len(calls)
            await until(lambda: {"delivery/worker/retention_loop.release_log", "ingest/log_server.ReportProgress"} <= set(calls[end:]))
    assert named_files() - {call.rpartition(".")[0] for call in calls} == set()
    left = iter(calls)
    assert [call for call in CALLS if call not in left] == []
