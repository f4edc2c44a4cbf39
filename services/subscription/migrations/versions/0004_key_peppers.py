"""What API keys were hashed with, kept beyond the secret key that it was derived from."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make room for the peppers; they are filled in as values are resealed."""
    op.create_table(
        "key_peppers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("secret_key_id", sa.Text, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
    )
