"""Cursors without the column that nothing reads."""

from alembic import op

revision = "led0003"
down_revision = "led0002"


def upgrade() -> None:
    """Drop the end of a lease: a lease ends when the next worker takes it."""
    op.execute("ALTER TABLE cursors DROP COLUMN expires_ms")
