"""Peppers, with which API keys are hashed; each is kept after the secret key that it was derived from is removed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table of peppers; resealing fills it."""
    op.create_table(
        "key_peppers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("secret_key_id", sa.Text, nullable=False),
        sa.Column("box", sa.LargeBinary, nullable=False),
    )
