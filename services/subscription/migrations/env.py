"""Alembic's entry point for the registry's schema; it uses the connection that `services.runtime.database.migrate` opened."""

from services.runtime.database import run_migrations

run_migrations()
