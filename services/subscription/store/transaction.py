"""Transaction: what the store's functions are given to read or to write with.

server → store → [transaction] → SQLite
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from services.subscription.model import ResumePoint
from services.subscription.store.vault import Vault

Row = sa.Row[*tuple[Any, ...]]


@dataclass(slots=True)
class Reading:
    """One transaction: everything read in it stood there at one moment, `now_ms`."""

    connection: sa.Connection
    vault: Vault
    now_ms: int


@dataclass(slots=True)
class Writing(Reading):
    """One transaction that changes something, the only one at that moment.

    `change` is None until a subscription has changed; a transaction makes at most one change.
    """

    changes_kept: int
    change: ResumePoint | None = None
