"""System: pause and resume all deliveries.

system_server → [system] → changes, database
"""

import sqlalchemy as sa

from services.subscription.model import Pause
from services.subscription.store import changes
from services.subscription.store.rows import pause_column, pause_from
from services.subscription.store.schema import registry
from services.subscription.store.transaction import Reading, Writing


def get_pause(reading: Reading) -> Pause | None:
    """Return the pause of all deliveries; None if they are not paused."""
    return pause_from(reading.connection.execute(sa.select(registry.c.pause)).scalar_one())


def pause(writing: Writing, new: Pause) -> Pause:
    """Pause all deliveries; return the pause that holds, which is an earlier one if they are paused already."""
    current = get_pause(writing)
    if current is None:
        _put(writing, new)
    return current or new


def resume(writing: Writing) -> None:
    """Resume deliveries, if they are paused."""
    if get_pause(writing) is not None:
        _put(writing, None)


def _put(writing: Writing, pause: Pause | None) -> None:
    writing.connection.execute(registry.update().values(pause=pause_column(pause)))
    changes.record(writing, changes.ChangeKind.SYSTEM, "")
