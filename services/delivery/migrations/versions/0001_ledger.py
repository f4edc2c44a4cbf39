"""The ledger: cursors with their leases, unfinished deliveries, and the ledger's own state.

Finished deliveries stand in one table a day, `done_YYYYMMDD`, which the ledger makes as it needs them and drops whole at retention.
`days` lists these tables, each with the version of the template that it follows.
"""

from alembic import op

revision = "led0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.execute(
        """
        CREATE TABLE cursors (
            partition INTEGER PRIMARY KEY,
            position INTEGER NOT NULL,
            event_id TEXT NOT NULL,
            subscription_id TEXT NOT NULL,
            owner TEXT NOT NULL,
            epoch INTEGER NOT NULL
        ) STRICT
        """
    )
    op.execute(
        """
        CREATE TABLE open (
            id BLOB PRIMARY KEY,
            event_id TEXT NOT NULL,
            partition INTEGER NOT NULL,
            position INTEGER NOT NULL,
            subscription_id TEXT NOT NULL,
            consumer_id TEXT NOT NULL,
            event_type TEXT NOT NULL,
            accepted_ms INTEGER NOT NULL,
            revision INTEGER NOT NULL,
            body_mode TEXT NOT NULL,
            encoder INTEGER NOT NULL,
            attempt_count INTEGER NOT NULL,
            attempts BLOB NOT NULL,
            last_status INTEGER NOT NULL,
            due_ms INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )
    op.execute("CREATE INDEX open_by_lane ON open (subscription_id, due_ms, position)")
    op.execute("CREATE INDEX open_by_consumer ON open (consumer_id, id)")
    op.execute("CREATE INDEX open_by_place ON open (partition, position)")
    op.execute(
        """
        CREATE TABLE payloads (
            partition INTEGER NOT NULL,
            position INTEGER NOT NULL,
            record BLOB NOT NULL,
            PRIMARY KEY (partition, position)
        ) STRICT, WITHOUT ROWID
        """
    )
    op.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID")
    op.execute("CREATE TABLE days (day TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID")
