BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('led0003');
CREATE TABLE cursors (
            partition INTEGER PRIMARY KEY,
            position INTEGER NOT NULL,
            event_id TEXT NOT NULL,
            subscription_id TEXT NOT NULL,
            owner TEXT NOT NULL,
            epoch INTEGER NOT NULL) STRICT
        ;
CREATE TABLE days (day TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
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
        ;
CREATE TABLE payloads (
            partition INTEGER NOT NULL,
            position INTEGER NOT NULL,
            record BLOB NOT NULL,
            PRIMARY KEY (partition, position)
        ) STRICT, WITHOUT ROWID
        ;
CREATE INDEX open_by_lane ON open (subscription_id, due_ms, position);
CREATE INDEX open_by_consumer ON open (consumer_id, id);
CREATE INDEX open_by_place ON open (partition, position);
COMMIT;
