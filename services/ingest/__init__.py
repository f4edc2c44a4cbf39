"""Ingest: accepts events, makes them durable, and only then acknowledges."""
