"""Transaction: what the store's functions are given to read or to write with.

server → store → [transaction] → SQLite
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from services.subscription.vault import Vault

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

    `revision` is None until a change of a subscription has taken one; a transaction takes at most one.
    """

    changes_kept: int
    revision: int | None = None
