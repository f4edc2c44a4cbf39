"""Bare database: `executemany` of an event log's rows without anything around it. Prints rows a second."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from services.eventlog.sqlite.event_ids import EventIds
from services.eventlog.sqlite.log import MIGRATIONS
from services.ingest.event_validation import validate_event
from services.runtime.database import connect, migrate
from tests.bench.load import event

_COLUMNS = "position, partition, event_id, accepted_ms, source, id, type, audience, digest, event"
_INSERT = f"INSERT INTO events ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)"  # noqa: S608 - a constant


def main(core: int, count: int, per_transaction: int, run: str) -> float:
    """Return rows a second, with `per_transaction` rows in each durable commit."""
    os.sched_setaffinity(0, {core})
    events = [validate_event(event(number, run), bytes_max=1 << 20) for number in range(1, count + 1)]
    ids = EventIds().take(int(time.time() * 1000), [new.partition for new in events])
    rows = []
    for number, (event_id, new) in enumerate(zip(ids, events, strict=True), 1):
        rows.append((number, new.partition, event_id, 0, new.source, new.id, new.type, new.audience, new.digest, new.event))
    with tempfile.TemporaryDirectory(prefix="hooktide-bench-") as folder:
        path = Path(folder) / "bare.db"
        migrate(path, MIGRATIONS)
        connection = connect(path)
        began = time.perf_counter()
        for start in range(0, count, per_transaction):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_INSERT, rows[start : start + per_transaction])
            connection.execute("COMMIT")
        took = time.perf_counter() - began
        connection.close()
    return count / took


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(**json.load(sys.stdin))))
