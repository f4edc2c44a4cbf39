BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE answers (
	scope TEXT NOT NULL,
	method TEXT NOT NULL,
	request_id TEXT NOT NULL,
	secret_key_id TEXT NOT NULL,
	box BLOB NOT NULL,
	create_ms INTEGER NOT NULL,
	PRIMARY KEY (scope, method, request_id)
);
CREATE TABLE callback_tokens (
	digest BLOB NOT NULL,
	subscription_id TEXT NOT NULL,
	sink_revision INTEGER NOT NULL,
	expire_ms INTEGER NOT NULL,
	PRIMARY KEY (digest),
	FOREIGN KEY(subscription_id) REFERENCES subscriptions (id)
);
CREATE TABLE changes (
	revision INTEGER NOT NULL,
	kind TEXT NOT NULL,
	subscription_id TEXT NOT NULL, change_id TEXT DEFAULT '' NOT NULL,
	PRIMARY KEY (revision)
);
CREATE TABLE consumers (
	id TEXT NOT NULL,
	name TEXT NOT NULL,
	create_ms INTEGER NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE credential_secrets (
	subscription_id TEXT NOT NULL,
	secret_key_id TEXT NOT NULL,
	box BLOB NOT NULL,
	PRIMARY KEY (subscription_id),
	FOREIGN KEY(subscription_id) REFERENCES subscriptions (id)
);
CREATE TABLE event_types (
	name TEXT NOT NULL,
	description TEXT NOT NULL,
	audience_required BOOLEAN NOT NULL,
	create_ms INTEGER NOT NULL,
	update_ms INTEGER NOT NULL,
	version INTEGER NOT NULL,
	PRIMARY KEY (name)
);
CREATE TABLE key_peppers (
	id TEXT NOT NULL,
	secret_key_id TEXT NOT NULL,
	box BLOB NOT NULL,
	PRIMARY KEY (id)
);
CREATE TABLE keys (
	id TEXT NOT NULL,
	role TEXT NOT NULL,
	consumer_id TEXT,
	name TEXT NOT NULL,
	hint TEXT NOT NULL,
	secret_key_id TEXT NOT NULL,
	lookup BLOB NOT NULL,
	digest BLOB NOT NULL,
	expire_ms INTEGER,
	revoke_ms INTEGER,
	create_ms INTEGER NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(consumer_id) REFERENCES consumers (id)
);
CREATE TABLE registry (
	id INTEGER NOT NULL CONSTRAINT one_row CHECK (id = 1),
	registry_id TEXT NOT NULL,
	revision INTEGER NOT NULL,
	compacted_revision INTEGER NOT NULL,
	catalogue_version INTEGER NOT NULL, change_id TEXT DEFAULT '' NOT NULL, compacted_change_id TEXT DEFAULT '' NOT NULL,
	PRIMARY KEY (id)
);
INSERT INTO "registry" VALUES(1,'675e07153f4244529f78857745029e18',1,1,0,'6cee5601965fe1f89d0c463df6f4e608','6cee5601965fe1f89d0c463df6f4e608');
CREATE TABLE secret_key_checks (
	secret_key_id TEXT NOT NULL,
	box BLOB NOT NULL,
	PRIMARY KEY (secret_key_id)
);
CREATE TABLE signing_secrets (
	subscription_id TEXT NOT NULL,
	number INTEGER NOT NULL,
	secret_key_id TEXT NOT NULL,
	box BLOB NOT NULL,
	create_ms INTEGER NOT NULL,
	expire_ms INTEGER, scheme TEXT DEFAULT 'v1' NOT NULL,
	PRIMARY KEY (subscription_id, number),
	FOREIGN KEY(subscription_id) REFERENCES subscriptions (id)
)
 WITHOUT ROWID

;
CREATE TABLE subscriptions (
	id TEXT NOT NULL,
	consumer_id TEXT NOT NULL,
	sink TEXT NOT NULL,
	protocol TEXT NOT NULL,
	types JSON NOT NULL,
	source TEXT NOT NULL,
	description TEXT NOT NULL,
	state TEXT NOT NULL,
	state_reason TEXT NOT NULL,
	create_ms INTEGER NOT NULL,
	update_ms INTEGER NOT NULL,
	revision INTEGER NOT NULL, sink_revision INTEGER DEFAULT '0' NOT NULL, limits JSON DEFAULT '{}' NOT NULL, settings JSON DEFAULT '{}' NOT NULL, credential JSON, verification JSON,
	PRIMARY KEY (id),
	FOREIGN KEY(consumer_id) REFERENCES consumers (id)
);
CREATE INDEX keys_by_lookup ON keys (lookup);
CREATE INDEX subscriptions_by_consumer ON subscriptions (consumer_id, id);
CREATE INDEX answers_by_age ON answers (create_ms);
CREATE INDEX callback_tokens_by_subscription ON callback_tokens (subscription_id);
CREATE INDEX callback_tokens_by_age ON callback_tokens (expire_ms);
COMMIT;
