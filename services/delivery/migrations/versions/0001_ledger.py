"""The ledger: cursor groups, the lease, unfinished deliveries, and the ledger's own state.

A cursor group is a set of slots with one place in the log. `positions`, `events` and `through` are JSON arrays with one entry for each
append shard: the position, the event there, and the last subscription to which that event is recorded (empty: to all of them).

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
        CREATE TABLE groups (
            group_id INTEGER PRIMARY KEY,
            positions TEXT NOT NULL,
            events TEXT NOT NULL,
            through TEXT NOT NULL
        ) STRICT
        """
    )
    op.execute("CREATE TABLE slots (slot INTEGER PRIMARY KEY, group_id INTEGER NOT NULL REFERENCES groups) STRICT")
    op.execute("INSERT INTO groups VALUES (1, '[0]', '[\"\"]', '[\"\"]')")
    op.execute(f"INSERT INTO slots VALUES {', '.join(f'({slot}, 1)' for slot in range(256))}")  # noqa: S608 - numbers
    # The lease is one row: the worker that may write, and its epoch.
    op.execute("CREATE TABLE lease (id INTEGER PRIMARY KEY CHECK (id = 1), owner TEXT NOT NULL, epoch INTEGER NOT NULL) STRICT")
    op.execute("INSERT INTO lease VALUES (1, '', 0)")
    op.execute(
        """
        CREATE TABLE open (
            id BLOB PRIMARY KEY,
            event_id TEXT NOT NULL,
            shard INTEGER NOT NULL,
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
            due_ms INTEGER NOT NULL,
            job_id TEXT NOT NULL,
            order_key BLOB NOT NULL,
            slot INTEGER NOT NULL,
            failed_sink INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )
    # With `failed_sink`, so that a start counts all rows by the index alone.
    op.execute("CREATE INDEX open_by_lane ON open (subscription_id, due_ms, position, failed_sink)")
    op.execute("CREATE INDEX open_by_consumer ON open (consumer_id, id)")
    op.execute("CREATE INDEX open_by_place ON open (shard, position)")
    op.execute(
        """
        CREATE TABLE payloads (
            shard INTEGER NOT NULL,
            position INTEGER NOT NULL,
            record BLOB NOT NULL,
            PRIMARY KEY (shard, position)
        ) STRICT, WITHOUT ROWID
        """
    )
    op.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID")
    op.execute("INSERT INTO meta VALUES ('layout', '3')")
    op.execute("CREATE TABLE days (day TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID")
    _create_range_tables()
    _create_lane_tables()


def _create_range_tables() -> None:
    """Create the tables of what has no row yet. A place is a JSON array with one position for each append shard."""
    op.execute(
        """
        CREATE TABLE owed (
            subscription_id TEXT NOT NULL,
            job_id TEXT NOT NULL,
            seq INTEGER NOT NULL,
            at TEXT NOT NULL,
            until TEXT,
            opened_ms INTEGER NOT NULL,
            consumer_id TEXT NOT NULL,
            PRIMARY KEY (subscription_id, job_id, seq)
        ) STRICT, WITHOUT ROWID
        """
    )
    op.execute(
        """
        CREATE TABLE jobs (
            subscription_id TEXT NOT NULL,
            job_id TEXT NOT NULL,
            state TEXT NOT NULL,
            after TEXT NOT NULL,
            through TEXT,
            handed INTEGER NOT NULL,
            finished INTEGER NOT NULL,
            failed INTEGER NOT NULL,
            PRIMARY KEY (subscription_id, job_id)
        ) STRICT, WITHOUT ROWID
        """
    )
    op.execute(
        """
        CREATE TABLE ended (
            subscription_id TEXT NOT NULL,
            job_id TEXT NOT NULL,
            reason INTEGER NOT NULL,
            after TEXT NOT NULL,
            through TEXT NOT NULL,
            about INTEGER NOT NULL,
            time_ms INTEGER NOT NULL,
            consumer_id TEXT NOT NULL,
            PRIMARY KEY (subscription_id, job_id, reason, after)
        ) STRICT, WITHOUT ROWID
        """
    )
    op.execute("CREATE INDEX ended_by_consumer ON ended (consumer_id)")
    op.execute(
        """
        CREATE TABLE set_aside (
            group_id INTEGER NOT NULL,
            shard INTEGER NOT NULL,
            position INTEGER NOT NULL,
            event_id TEXT NOT NULL,
            reason TEXT NOT NULL,
            time_ms INTEGER NOT NULL,
            PRIMARY KEY (group_id, shard, position)
        ) STRICT, WITHOUT ROWID
        """
    )


def _create_lane_tables() -> None:
    op.execute(
        """
        CREATE TABLE lanes (
            subscription_id TEXT PRIMARY KEY,
            sink INTEGER NOT NULL,
            opens_until_ms INTEGER NOT NULL,
            breaker_level INTEGER NOT NULL,
            retry_after_ms INTEGER NOT NULL,
            failures INTEGER NOT NULL,
            failing_since_ms INTEGER NOT NULL,
            granted_rate REAL NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )
    op.execute(
        """
        CREATE TABLE outbox (
            id TEXT PRIMARY KEY,
            consumer_id TEXT NOT NULL,
            notice BLOB NOT NULL,
            created_ms INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )
    op.execute("CREATE INDEX outbox_by_time ON outbox (created_ms, id)")
    op.execute("CREATE INDEX outbox_by_consumer ON outbox (consumer_id, created_ms, id)")
