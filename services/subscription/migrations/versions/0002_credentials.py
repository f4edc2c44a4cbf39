"""Credentials, request settings and limits, Ed25519 keys, and sink verification."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the new columns of subscriptions. For an existing subscription, the sink counts as set by the latest change."""
    op.add_column("subscriptions", sa.Column("sink_revision", sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE subscriptions SET sink_revision = revision")
    op.add_column("subscriptions", sa.Column("limits", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("subscriptions", sa.Column("settings", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("subscriptions", sa.Column("credential", sa.JSON, nullable=True))
    op.add_column("subscriptions", sa.Column("verification", sa.JSON, nullable=True))
    op.add_column("signing_secrets", sa.Column("scheme", sa.Text, nullable=False, server_default="v1"))
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
