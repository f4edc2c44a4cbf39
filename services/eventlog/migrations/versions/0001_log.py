"""The log: the records, the progress of the slots that read it, and the log's own state.

`position` is one counter over all partitions: the file is one append shard, number 0. The rows are written in that order, so the table
grows at its end.
"""

from alembic import op

revision = "log0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.execute(
        """
        CREATE TABLE events (
            position INTEGER PRIMARY KEY,
            partition INTEGER NOT NULL,
            event_id BLOB NOT NULL,
            accepted_ms INTEGER NOT NULL,
            source TEXT NOT NULL,
            id TEXT NOT NULL,
            type TEXT NOT NULL,
            audience TEXT NOT NULL,
            digest BLOB NOT NULL,
            event BLOB NOT NULL
        ) STRICT
        """
    )
    op.execute("CREATE UNIQUE INDEX events_by_source_and_id ON events (source, id)")
    # A filtered read examines this index alone, and reads the rows of matching events only.
    op.execute("CREATE INDEX events_by_filter ON events (position, audience, type, source)")
    op.execute(
        """
        CREATE TABLE progress (
            slot INTEGER NOT NULL,
            shard INTEGER NOT NULL,
            recorded INTEGER NOT NULL,
            released INTEGER NOT NULL,
            PRIMARY KEY (slot, shard)
        ) STRICT, WITHOUT ROWID
        """
    )
    op.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID")
    op.execute("INSERT INTO meta VALUES ('log_id', lower(hex(randomblob(16)))), ('trimmed_to', '0'), ('layout', '3')")
