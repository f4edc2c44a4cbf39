"""The registry: consumers, keys, subscriptions with their secrets and changes, the catalogue, answers of idempotent calls."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables, and give this registry its identity."""
    registry = op.create_table(
        "registry",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="one_row"), primary_key=True),
        sa.Column("registry_id", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("compacted_revision", sa.Integer, nullable=False),
        sa.Column("catalogue_version", sa.Integer, nullable=False),
        sa.Column("change_id", sa.Text, nullable=False),
        sa.Column("compacted_change_id", sa.Text, nullable=False),
        sa.Column("pause", sa.JSON, nullable=True),
    )
    meta = op.create_table("meta", sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False))
    op.bulk_insert(meta, [{"name": "layout", "value": "3"}])
    _create_secret_keys()
    _create_access()
    _create_subscriptions()
    _create_secrets()
    op.create_table(
        "event_types",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("audience_required", sa.Boolean, nullable=False),
        sa.Column("create_ms", sa.Integer, nullable=False),
        sa.Column("update_ms", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "answers",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("method", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("secret_key_id", sa.Text, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        sa.Column("create_ms", sa.Integer, nullable=False),
    )
    op.create_index("answers_by_age", "answers", ["create_ms"])
    identity = {"id": 1, "registry_id": uuid.uuid4().hex, "revision": 1, "compacted_revision": 1, "catalogue_version": 0}
    first_change_id = uuid.uuid4().hex
    op.bulk_insert(registry, [identity | {"change_id": first_change_id, "compacted_change_id": first_change_id}])


def _create_secret_keys() -> None:
    op.create_table(
        "secret_key_checks",
        sa.Column("secret_key_id", sa.Text, primary_key=True),
        sa.Column("box", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "key_peppers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("secret_key_id", sa.Text, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
    )


def _create_access() -> None:
    op.create_table(
        "consumers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("create_ms", sa.Integer, nullable=False),
        sa.Column("subscriptions_created", sa.Integer, nullable=False),
        sa.Column("pause", sa.JSON, nullable=True),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("consumer_id", sa.Text, sa.ForeignKey("consumers.id"), nullable=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("secret_key_id", sa.Text, nullable=False),
        sa.Column("lookup", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("expire_ms", sa.Integer, nullable=True),
        sa.Column("revoke_ms", sa.Integer, nullable=True),
        sa.Column("create_ms", sa.Integer, nullable=False),
    )
    op.create_index("keys_by_lookup", "keys", ["lookup"])


def _create_subscriptions() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("consumer_id", sa.Text, sa.ForeignKey("consumers.id"), nullable=False),
        sa.Column("sink", sa.Text, nullable=False),
        sa.Column("protocol", sa.Text, nullable=False),
        sa.Column("types", sa.JSON, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("state_reason", sa.Text, nullable=False),
        sa.Column("create_ms", sa.Integer, nullable=False),
        sa.Column("update_ms", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("sink_revision", sa.Integer, nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("credential", sa.JSON, nullable=True),
        sa.Column("verification", sa.JSON, nullable=True),
        sa.Column("pause", sa.JSON, nullable=True),
    )
    op.create_index("subscriptions_by_consumer", "subscriptions", ["consumer_id", "id"])
    op.create_table(
        "changes",
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject_id", sa.Text, nullable=False),
        sa.Column("change_id", sa.Text, nullable=False),
    )


def _create_secrets() -> None:
    op.create_table(
        "signing_secrets",
        sa.Column("subscription_id", sa.Text, sa.ForeignKey("subscriptions.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("secret_key_id", sa.Text, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
        sa.Column("create_ms", sa.Integer, nullable=False),
        sa.Column("expire_ms", sa.Integer, nullable=True),
        sa.Column("scheme", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "credential_secrets",
        sa.Column("subscription_id", sa.Text, sa.ForeignKey("subscriptions.id"), primary_key=True),
        sa.Column("secret_key_id", sa.Text, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "callback_tokens",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("subscription_id", sa.Text, sa.ForeignKey("subscriptions.id"), nullable=False),
        sa.Column("sink_revision", sa.Integer, nullable=False),
        sa.Column("expire_ms", sa.Integer, nullable=False),
    )
    op.create_index("callback_tokens_by_subscription", "callback_tokens", ["subscription_id"])
    op.create_index("callback_tokens_by_age", "callback_tokens", ["expire_ms"])
