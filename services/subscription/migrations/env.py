"""Where alembic meets the connection that `services.runtime.database.migrate` opened."""

from services.runtime.database import run_migrations

run_migrations()
