"""The tables of days, each with the version of the template that it follows."""

from alembic import op

revision = "led0002"
down_revision = "led0001"


def upgrade() -> None:
    """Create the list of days, with the days that have a table already; their tables follow the first version."""
    op.execute("CREATE TABLE days (day TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID")
    op.execute(
        "INSERT INTO days SELECT substr(name, length('done_') + 1), 1 FROM sqlite_master WHERE type = 'table' AND name GLOB 'done_[0-9]*'"
    )
