"""Alembic's entry point for the ledger's schema."""

from services.runtime.database import run_migrations

run_migrations()
