"""Transaction: the object through which the store's functions read or write.

server → store → [transaction] → database
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from services.subscription.model import ResumePoint
from services.subscription.store.vault import Vault

Row = sa.Row[*tuple[Any, ...]]


@dataclass(slots=True)
class Reading:
    """One transaction: all its reads see one consistent state; its time is `now_ms`."""

    connection: sa.Connection
    vault: Vault
    now_ms: int


@dataclass(slots=True)
class Writing(Reading):
    """One transaction that may write; no other writes at the same time.

    `change` is the last change that the transaction makes; None before its changes are recorded, which happens once.
    """

    changes_kept: int
    change: ResumePoint | None = None
