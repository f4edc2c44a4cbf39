BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('log0001');
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
        ;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('log_id','2f434bf56eae6035e2121c45dd77058c');
INSERT INTO "meta" VALUES('trimmed_to','0');
CREATE TABLE released (partition INTEGER PRIMARY KEY, position INTEGER NOT NULL) STRICT;
CREATE UNIQUE INDEX events_by_source_and_id ON events (source, id);
CREATE INDEX events_by_partition ON events (partition, position);
COMMIT;
