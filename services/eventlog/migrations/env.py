"""Alembic's entry point for the event log's schema."""

from services.runtime.database import run_migrations

run_migrations()
