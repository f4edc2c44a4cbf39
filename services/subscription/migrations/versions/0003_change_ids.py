"""Random ids of changes, which reveal that a registry was restored from an older copy."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_changes = sa.table("changes", sa.column("revision"), sa.column("change_id"))
_registry = sa.table("registry", sa.column("revision"), sa.column("change_id"), sa.column("compacted_change_id"))
_RANDOM = sa.func.lower(sa.func.hex(sa.func.randomblob(16)))


def upgrade() -> None:
    """Give every change an id. No watch knows these ids yet, so every watch takes a new snapshot once."""
    op.add_column("changes", sa.Column("change_id", sa.Text, nullable=False, server_default=""))
    op.add_column("registry", sa.Column("change_id", sa.Text, nullable=False, server_default=""))
    op.add_column("registry", sa.Column("compacted_change_id", sa.Text, nullable=False, server_default=""))
    op.execute(sa.update(_changes).values(change_id=_RANDOM))
    op.execute(sa.update(_registry).values(compacted_change_id=_RANDOM))
    newest = sa.select(_changes.c.change_id).where(_changes.c.revision == _registry.c.revision).scalar_subquery()
    op.execute(sa.update(_registry).values(change_id=sa.func.coalesce(newest, _registry.c.compacted_change_id)))
