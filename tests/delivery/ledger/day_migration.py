"""Day migration: a process that brings a ledger's tables of days to a newer template, and kills itself on the way.

`python -m tests.delivery.ledger.day_migration <file> <commits>` is killed when that many calls around commits were made.
"""

import os
import signal
import sys
from pathlib import Path

from services.delivery.ledger.sqlite import day_tables
from services.runtime import failpoints

_COLUMN = "region TEXT NOT NULL DEFAULT ''"
_INDEX = "CREATE INDEX {table}_by_subscription ON {table} (subscription_id, id)"
_TABLE, *_INDEXES = day_tables.TEMPLATE.create
NEXT_TEMPLATE = day_tables.DayTemplate(
    version=day_tables.TEMPLATE.version + 1,
    create=(_TABLE.replace("\n        )", f", {_COLUMN})"), *_INDEXES, _INDEX),
    upgrades={**day_tables.TEMPLATE.upgrades, day_tables.TEMPLATE.version: (f"ALTER TABLE {{table}} ADD COLUMN {_COLUMN}", _INDEX)},
)
"""The present template with another column and another index."""


def main() -> None:
    """Migrate, and be killed at the given moment."""
    path, left = Path(sys.argv[1]), int(sys.argv[2])

    def reached(point: str) -> None:
        nonlocal left
        assert point in {"ledger.before_commit", "ledger.after_commit"}
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    failpoints.reached = reached
    day_tables.TEMPLATE = NEXT_TEMPLATE
    day_tables.migrate_days(path)


if __name__ == "__main__":
    main()
